"""What each command of `alexnet` does: plain functions of the parsed arguments; the exit code, or nothing for 0."""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows import config as configuration
from workflows import recipes
from workflows.catalog import NAMES, STAGES
from workflows.config import RunConfig, UsageError
from workflows.console import Console, duration, size, table

if TYPE_CHECKING:
    from workflows.plan import Planned

FAILED = 1


def resolved(args: argparse.Namespace, otherwise_last: bool = True) -> RunConfig:
    """The recipe or file that was named, else the last run's configuration, else demo; then the settings."""
    from workflows.run import LAST

    if args.root.exists() and not args.root.is_dir():
        raise UsageError(f"--root {args.root} is no folder; name one")
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
    from workflows.compute import OnRay

    config = resolved(args, otherwise_last=args.stage is not None)
    root = args.root.absolute()
    only = _chosen(args)

    def check(planned: list["Planned"]) -> None:
        _check(planned, only, config, root)

    options = {"only": only, "force": args.force, "console": Console(), "check": check}
    options["compute"] = lambda config, console: OnRay(config.ray, console.say, debug=args.debug)
    rows = running.run(STAGES, config, root, command=lambda verb: command(verb, args), **options)
    heading = ["stage", "state", "time", "result"]
    print(table([heading, *([row.stage, row.state, duration(row.seconds), row.result] for row in rows)]))
    if all(row.state == "cached" for row in rows):
        print("nothing to do: every stage was done before")
    if rows[-1].stage == "report":
        print(f"report: {rows[-1].path / 'report.html'}")
    if config.tracking.uri != "off":
        print(f"MLflow: {_ui(args)}")


def _chosen(args: argparse.Namespace) -> tuple[str, ...]:
    """The stages to run; UsageError where there are none, or one that is forced is not among them."""
    first, last = (args.stage, args.stage) if args.stage else (args.first, args.last)
    only = NAMES[NAMES.index(first) : NAMES.index(last) + 1]
    if not only:
        raise UsageError(f"--from {first} --until {last}: {last} comes before {first}, so nothing would run")
    for name in args.force:
        if name not in only:
            raise UsageError(f"--force {name}: {name} is not among the stages to run ({', '.join(only)})")
    return only


def _check(planned: list["Planned"], only: tuple[str, ...], config: RunConfig, root: Path) -> None:
    """What only the last stages would find out is refused before the first one runs."""
    from pipelines.storage import Folder
    from workflows import predict

    due = {step.stage.name for step in planned if step.stage.name in only and step.state != "CACHED"}
    if "train" in due:
        configuration.check_together(config)
    counts, split = predict.counts_of(planned, config, root), config.evaluate.split
    if "evaluate" in due and counts and not counts.get(split):
        have = ", ".join(name for name, count in counts.items() if count)
        raise UsageError(f"evaluate.split={split}: there are no such images; set it to one of {have}")
    if due and config.store:
        store = Folder.at(config.store)
        try:
            usable = store.exists() or not (store.is_local and store.local_path().exists())
        except (ValueError, OSError) as error:
            raise UsageError(f"store={store.where()}: {str(error).splitlines()[0]}") from error
        if not usable:
            raise UsageError(f"store={store.where()} is no folder; name one")


def plan(args: argparse.Namespace) -> None:
    """What would run, why, and how long and large it will be."""
    from workflows import predict

    config, root, rows = resolved(args), args.root.absolute(), []
    planned, counts = _planned(args)
    for step in planned:
        row = _status_row(step, config, counts)
        if step.state != "CACHED":
            expected = predict.predict(step, config, root, counts)
            row |= {"units": expected.units, "seconds": expected.seconds}
            row |= {"bytes": expected.num_bytes, "shards": expected.shards}
        rows.append(row)
    if args.json:
        print(_json(rows))
        return
    cells = [[r["stage"], r["state"], r["key"], _expected(r), "; ".join(r["reasons"])] for r in rows]
    print(table([["stage", "state", "key", "expected", "why"], *cells]))


def status(args: argparse.Namespace) -> None:
    """What is there, when it was made, how long it took, its result and its run."""
    config = resolved(args)
    planned, counts = _planned(args)
    rows = [_status_row(step, config, counts) for step in planned]
    if args.json:
        print(_json([row | {"mlflow_ui": _ui(args)} for row in rows]))
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
    if any(row["mlflow_run_id"] for row in rows):
        print(f"the MLflow runs: {_ui(args)}")


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

    planned, _ = _planned(args)
    found = cleaning.leftovers(planned, resolved(args), args.root.absolute())
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
    from workflows.stage import RECORD

    ingest = _planned(args)[0][0]
    if ingest.state != "CACHED":
        way_out = f"run `{command('ingest', args)}`"
        raise UsageError(f"nothing to verify: ingest is {ingest.state} for this configuration; {way_out}")
    store = ingest.output.store
    problems = problems_by_file(store)
    if not problems:
        print(f"{store.where()}: every shard is as the manifest says")
        return None
    (ingest.output.folder / RECORD).unlink()
    forget(store, problems)
    print("\n".join(line for lines in problems.values() for line in lines))
    print(f"{len(problems)} damaged: `{command('ingest', args)}` writes anew what is damaged, and only that")
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
    if args.model and args.model.startswith("models:/"):
        from workflows.tracking import registered_files

        tracking = resolved(args).tracking
        if tracking.uri == "off":
            raise UsageError(f"--model {args.model}: tracking.uri=off keeps no registry; name a folder")
        return registered_files(tracking, args.root.absolute(), args.model)
    if args.model:
        return Path(args.model)
    train = {step.stage.name: step for step in _planned(args)[0]}["train"]
    if train.state != "CACHED":
        way_out = f"run `{command('run', args)}`, or name a --model"
        raise UsageError(f"train is {train.state} for this configuration: {way_out}")
    return train.output.folder / "model"


def bench(args: argparse.Namespace) -> None:
    """Times ours and the peers in one run, and writes what was measured."""
    import importlib

    from workflows.bench.common import write_json

    if args.images and "://" not in args.images and not Path(args.images).exists():
        raise UsageError(f"--images {args.images}: there is no such file or folder")
    if (1 if args.repeats is None else args.repeats) < 1 or (1 if args.seconds is None else args.seconds) <= 0:
        raise UsageError("--repeats is 1 or more, --seconds more than 0")
    measure = importlib.import_module(f"workflows.bench.{args.what}").run
    options = {"repeats": args.repeats, "seconds_per_part": args.seconds}
    given = {name: value for name, value in options.items() if value is not None}
    result = measure(images=args.images, **given)
    if args.json:
        write_json(args.json, result)


def _planned(args: argparse.Namespace) -> tuple[list["Planned"], dict[str, int]]:
    """The stages, and images by split; creates nothing where there is no root."""
    from workflows import plan as planning
    from workflows import predict

    config, root = resolved(args), args.root.absolute()
    with planning.seen_sources(root) as seen:
        planned = planning.plan(STAGES, config, root, seen)
        return planned, predict.counts_of(planned, config, seen)


def _status_row(step: "Planned", config: RunConfig, counts: dict[str, int]) -> dict[str, Any]:
    from workflows import predict

    record = step.output.record or {}
    left = predict.left(step, config, counts)
    return {
        "stage": step.stage.name,
        "state": step.state,
        "key": step.output.key,
        "path": str(step.output.folder),
        "mlflow_run_id": record.get("mlflow_run_id"),
        "seconds": record.get("seconds"),
        "finished": record.get("finished"),
        "result": record.get("result"),
        "reasons": [str(left)] if left else list(step.reasons),
        "left": vars(left) if left else None,
    }


def _expected(row: dict[str, Any]) -> str:
    if "units" not in row:
        return ""
    parts = ["time unknown" if row["seconds"] is None else duration(row["seconds"])]
    parts += [] if row["bytes"] is None else [size(row["bytes"])]
    parts += [] if row["shards"] is None else [f"{row['shards']} shards"]
    return ", ".join(parts)


def _json(rows: list[dict[str, Any]]) -> str:
    import json

    return json.dumps(rows, indent=1, default=str)


def program() -> list[str]:
    """How this program was called."""
    called = sys.argv[0]
    if not os.access(called, os.X_OK):
        return [sys.executable, "-m", "workflows.cli"] if called.endswith("cli.py") else ["alexnet"]
    return ["alexnet"] if shutil.which("alexnet") == called else [called]


def command(verb: str, args: argparse.Namespace) -> str:
    """This command line with another verb: the same recipe or file, settings and root."""
    chosen = [f"--{name}={given}" for name in ("recipe", "config") if (given := getattr(args, name))]
    chosen += [f"--set={setting}" for setting in args.settings]
    return shlex.join([*program(), verb, *chosen, *_root(args)])


def _ui(args: argparse.Namespace) -> str:
    return shlex.join([*program(), "ui", *_root(args)])


def _root(args: argparse.Namespace) -> list[str]:
    return [] if args.root == Path("runs") else [f"--root={args.root}"]
