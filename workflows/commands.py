"""What each command of `alexnet` does: plain functions of the parsed arguments; the exit code, or nothing for 0."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from workflows import config as configuration
from workflows import recipes
from workflows.catalog import NAMES, STAGES
from workflows.config import RunConfig, UsageError
from workflows.console import Console, duration, size, table

FAILED = 1


def resolved(args: argparse.Namespace, otherwise_last: bool = True) -> RunConfig:
    """The recipe or file that was named, else the last run's configuration, else demo; then the settings."""
    from workflows.run import LAST

    last = args.root / LAST
    if args.config:
        base = configuration.load(args.config)
    elif args.recipe:
        base = recipes.named(args.recipe)
    elif otherwise_last and last.is_file():
        base = configuration.load(last)
    else:
        base = recipes.demo()
    return configuration.with_values(base, dict(map(configuration.parse_setting, args.settings)))


def run(args: argparse.Namespace) -> None:
    """All stages, or one; then a table of what became of them."""
    from workflows import run as running

    config = resolved(args, otherwise_last=args.stage is not None)
    root = args.root.absolute()
    only = [args.stage] if args.stage else NAMES[NAMES.index(args.first) : NAMES.index(args.last) + 1]
    options = {"only": only, "force": args.force, "console": Console()}
    rows = running.run(STAGES, config, root, **options)
    heading = ["stage", "state", "time", "result"]
    print(table([heading, *([row.stage, row.state, duration(row.seconds), row.result] for row in rows)]))
    if all(row.state == "cached" for row in rows):
        print("nothing to do: every stage was done before")
    if rows[-1].stage == "report":
        print(f"report: {rows[-1].path / 'report.html'}")
    print(f"MLflow: {_command('ui', args.root)}")


def plan(args: argparse.Namespace) -> None:
    """What would run, why, and how long and large it will be."""
    from workflows import plan as planning
    from workflows import predict

    config, root = resolved(args), args.root.absolute()
    planned = planning.plan(STAGES, config, root)
    counts = predict.counts_of(planned, config, root)
    rows = []
    for step in planned:
        row = _status_row(step)
        if step.state != "CACHED":
            expected = predict.predict(step, config, root, counts)
            row |= {"units": expected.units, "seconds": expected.seconds, "bytes": expected.num_bytes}
        rows.append(row)
    if args.json:
        print(_json(rows))
        return
    cells = [[r["stage"], r["state"], r["key"], _expected(r), "; ".join(r["reasons"])] for r in rows]
    print(table([["stage", "state", "key", "expected", "why"], *cells]))


def status(args: argparse.Namespace) -> None:
    """What is there, when it was made, how long it took, its result and its run."""
    from workflows import plan as planning

    rows = [_status_row(step) for step in planning.plan(STAGES, resolved(args), args.root.absolute())]
    if args.json:
        print(_json(rows))
        return
    heading = ["stage", "state", "key", "finished", "time", "MLflow run", "result"]
    cells = [
        [
            row["stage"],
            row["state"],
            row["key"],
            (row["finished"] or "")[:16],
            "" if row["seconds"] is None else duration(row["seconds"]),
            (row["mlflow_run_id"] or "")[:8],
            row["result"] or "; ".join(row["reasons"]),
        ]
        for row in rows
    ]
    print(table([heading, *cells]))


def show_config(args: argparse.Namespace) -> None:
    """The resolved configuration as a file that --config takes back."""
    print(configuration.dump(resolved(args)), end="")


def show_recipes(args: argparse.Namespace) -> None:
    """The recipes, what they cost and what to expect."""
    for name, recipe in recipes.RECIPES.items():
        print(f"{name}\n    " + "\n    ".join(line.strip() for line in recipe.__doc__.strip().splitlines()))


def ui(args: argparse.Namespace) -> int:
    """Serves the MLflow UI until interrupted."""
    from workflows.ui import serve

    return serve(resolved(args).tracking, args.root.absolute(), args.port)


def doctor(args: argparse.Namespace) -> int | None:
    """Looks at this machine; fails where something is wrong."""
    from workflows.doctor import examine

    findings = examine(resolved(args), args.root.absolute())
    if args.json:
        print(_json([vars(finding) for finding in findings]))
    else:
        print(table([["what", "verdict", "found"], *([f.what, f.verdict, f.text] for f in findings)]))
    return FAILED if any(finding.verdict == "wrong" for finding in findings) else None


def clean(args: argparse.Namespace) -> None:
    """Lists what nothing uses any more and, with --yes, removes it."""
    from workflows import clean as cleaning
    from workflows import plan as planning

    root = args.root.absolute()
    found = cleaning.leftovers(planning.plan(STAGES, resolved(args), root), root)
    for leftover in found:
        print(f"{leftover.path}  {size(leftover.num_bytes)}  {leftover.why}")
        if args.yes:
            leftover.remove()
    total = size(sum(leftover.num_bytes for leftover in found))
    if not found:
        print("nothing to remove")
    else:
        print(
            f"{'removed' if args.yes else 'would remove'} {len(found)}, {total}"
            + ("" if args.yes else "; --yes does it")
        )


def verify(args: argparse.Namespace) -> int | None:
    """Reads every shard again and compares it with the manifest; what is damaged counts as unfinished from then on."""
    from pipelines.shards import forget, problems_by_file
    from workflows import plan as planning
    from workflows.stage import RECORD

    ingest = planning.plan(STAGES, resolved(args), args.root.absolute())[0]
    if ingest.state != "CACHED":
        raise UsageError(f"nothing to verify: ingest is {ingest.state} for this configuration; run `alexnet ingest`")
    store = ingest.output.store
    problems = problems_by_file(store)
    if not problems:
        print(f"{store.where()}: every shard is as the manifest says")
        return None
    (ingest.output.folder / RECORD).unlink()
    forget(store, problems)
    print("\n".join(line for lines in problems.values() for line in lines))
    print(f"{len(problems)} damaged: `{_command('ingest', args.root)}` writes anew what is damaged, and only that")
    return FAILED


def predict(args: argparse.Namespace) -> None:
    """The five likeliest classes of image files, with bars."""
    from workflows.predicting import predictions

    for path, best in predictions(_model_folder(args), args.images):
        print(path)
        for title, probability in best:
            print(f"  {probability:6.1%}  {'█' * round(probability * 30):30}  {title}")


def _model_folder(args: argparse.Namespace) -> Path:
    """The exported model that was named, by folder or in the registry, else the one that the workflow has trained."""
    from workflows import plan as planning
    from workflows.tracking import registered_files

    config, root = resolved(args), args.root.absolute()
    if args.model and args.model.startswith("models:/"):
        return registered_files(config.tracking, root, args.model)
    if args.model:
        return Path(args.model)
    train = {step.stage.name: step for step in planning.plan(STAGES, config, root)}["train"]
    if train.state != "CACHED":
        raise UsageError(f"train is {train.state} for this configuration: run `alexnet run`, or name a --model")
    return train.output.folder / "model"


def bench(args: argparse.Namespace) -> None:
    """Times ours and the peers in one run, and writes what was measured."""
    import importlib

    from workflows.bench.common import write_json

    measure = importlib.import_module(f"workflows.bench.{args.what}").run
    options = {"repeats": args.repeats, "seconds_per_part": args.seconds}
    given = {name: value for name, value in options.items() if value is not None}
    result = measure(images=args.images, **given)
    if args.json:
        write_json(args.json, result)


def _status_row(step) -> dict[str, Any]:
    record = step.output.record or {}
    return {
        "stage": step.stage.name,
        "state": step.state,
        "key": step.output.key,
        "path": str(step.output.folder),
        "mlflow_run_id": record.get("mlflow_run_id"),
        "seconds": record.get("seconds"),
        "finished": record.get("finished"),
        "result": record.get("result"),
        "reasons": list(step.reasons),
    }


def _expected(row: dict[str, Any]) -> str:
    if "units" not in row:
        return ""
    seconds = "time unknown" if row["seconds"] is None else duration(row["seconds"])
    return seconds + ("" if row["bytes"] is None else f", {size(row['bytes'])}")


def _json(rows: list[dict[str, Any]]) -> str:
    import json

    return json.dumps(rows, indent=1, default=str)


def _command(verb: str, root: Path) -> str:
    """How this program was called, with another verb."""
    called = [sys.argv[0] if "/" in sys.argv[0] else "alexnet", verb]
    return shlex.join([*called, *([] if root == Path("runs") else ["--root", str(root)])])
