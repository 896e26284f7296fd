"""What each command of `alexnet` does: plain functions of the parsed arguments; the exit code, or nothing for 0."""

import argparse
import contextlib
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage import Folder
from workflows import config as configuration
from workflows import recipes
from workflows.commands.given import Given, given
from workflows.config import BASELINES, RunConfig, UsageError
from workflows.console import Console, duration, size, table, tell
from workflows.folders import MODELS
from workflows.workflow import NAMES, OF_A_RUN, STAGES, needed_by

if TYPE_CHECKING:
    from workflows.commands.classify import Predicted
    from workflows.engine.outputs import Output
    from workflows.engine.plan import Planned

FAILED = 1


def run(args: argparse.Namespace) -> None:
    """All stages, or one, an optional one with what it still needs; then a table of what became of them."""
    from workflows.compute.on_ray import OnRay
    from workflows.engine import run as running

    here, console = given(args), Console()
    only = _chosen(here)

    def check(planned: list["Planned"]) -> None:
        due = {step.stage.name for step in planned if step.stage.name in only and step.state != "CACHED"}
        require_possible(planned, due, here.config)
        idle = idle_gpus(here.config) if "train" in due else ""
        here.announce(console)
        if idle:
            console.say(f"warning: {idle}")

    options = {"only": only, "redo": args.redo, "take_lock": args.take_lock, "console": console, "check": check}
    options["compute"] = lambda config, console: OnRay(config.ray, console.say, debug=args.debug)
    rows = running.run(STAGES, here.config, here.root, command=here.command, **options)
    heading = ["stage", "state", "time", "result"]
    tell(*table([heading, *([row.stage, row.state, duration(row.seconds), row.result] for row in rows)]))
    if all(row.state == "cached" for row in rows):
        tell("nothing to do: every stage was done before")
    if rows[-1].stage == "report":
        tell(f"report: {rows[-1].folder.where('report.html')}")
    if here.config.tracking.uri != "off":
        tell(f"MLflow: {here.ui()}")


def _chosen(here: Given) -> tuple[str, ...]:
    """The stages to run; UsageError where there are none, or one to make again is not among them."""
    args = here.args
    only = (
        _alone(here, args.stage) if args.stage else OF_A_RUN[OF_A_RUN.index(args.first) : OF_A_RUN.index(args.last) + 1]
    )
    if not only:
        raise UsageError(
            f"--from {args.first} --until {args.last}: {args.last} comes before {args.first}, so nothing would run"
        )
    for name in args.redo:
        if name not in only:
            raise UsageError(f"--redo {name}: {name} is not among the stages to run ({', '.join(only)})")
    return only


def _alone(here: Given, name: str) -> tuple[str, ...]:
    """One stage; before an optional one, those that it needs and that are not done."""
    if name in OF_A_RUN:
        return (name,)
    needs = needed_by(name)
    undone = [step.stage.name for step in _planned(here)[0] if step.stage.name in needs and step.state != "CACHED"]
    return (*undone, name)


def require_possible(planned: list["Planned"], due: set[str], config: RunConfig) -> None:
    """UsageError where the last of the stages due would find out only after the first ones ran that they cannot."""
    from workflows.engine import estimate

    counts = estimate.counts_of(planned)
    if "train" in due:
        configuration.check_together(config)
        require_trainable(planned[0].seen.facts.get("classes", 0), counts, config)
    for name in due.intersection(BASELINES):
        configuration.require_scikit_learn(name)
    if due & {"evaluate", *BASELINES} and counts:
        configuration.require_split(config.evaluate.split, counts)
    if "features" in due and counts:
        configuration.require_splits(config.features.splits, counts)
    if due & {"neighbours", "codes"}:
        configuration.require_features_of(config)
        configuration.require_faiss(config.neighbours.index)
    if due and config.store:
        _require_store(config.store)


def idle_gpus(config: RunConfig) -> str:
    """What there is to say of GPUs that training will not use; UsageError where `train.device` wants them."""
    from workflows.compute import devices

    built = devices.torch_cuda()
    version = "" if built and config.train.device != "gpu" else devices.driver()
    return devices.foreseen(config.train.device, built, version, is_here=not config.ray.address)


def require_trainable(classes: int, counts: dict[str, int], config: RunConfig) -> None:
    """UsageError where this cannot be trained: one class (0: not known), no images, none to follow the error on."""
    if classes == 1:
        raise UsageError(
            f"ingest.source={config.ingest.source} has one class: nothing to learn; name the folder above it"
        )
    if counts:
        configuration.require_training_images(config.ingest, counts.get("train", 0))
    if classes:
        configuration.require_classes(config.net, classes)
    if counts:
        configuration.require_validation(config.train, counts.get("val", 0))


def _require_store(url: str) -> None:
    store = Folder.at(url)
    try:
        usable = store.exists() or not (store.is_local and store.local_path().exists())
    except (ValueError, OSError) as error:
        raise UsageError(f"store={store.where()}: {str(error).splitlines()[0]}") from error
    if not usable:
        raise UsageError(f"store={store.where()} is no folder; name one")


def plan(args: argparse.Namespace) -> None:
    """What would run, and why, from what is there now; how long and large it will be."""
    from workflows.commands import rates
    from workflows.engine import estimate
    from workflows.engine.provenance import code_commit

    here, rows = given(args), []
    planned, counts = _planned(here, anew=True)
    here.announce(Console())
    _tell_of_damage(here, planned)
    commit = code_commit()
    for step in planned:
        row = _status_row(step, here.config, counts)
        row["reasons"] += _notes(step, commit)
        if step.stage.optional and step.state != "CACHED":
            row["reasons"].append(f"optional: `alexnet {step.stage.verb}` makes it")
        if step.state != "CACHED":
            expected = estimate.predict(step, here.config, here.places(), counts)
            row |= {"units": expected.units, "seconds": expected.seconds}
            row |= {"bytes": expected.num_bytes, "shards": expected.shards}
        rows.append(row)
    if args.json:
        tell(*_json(rows))
        return
    cells = [[r["stage"], r["state"], r["key"], _expected(r), "; ".join(r["reasons"])] for r in rows]
    tell(*table([["stage", "state", "key", "expected", "why"], *cells]))
    if any(row["stage"] == "train" and row["state"] != "CACHED" for row in rows):
        tell("", *rates.lines(here.config))


def _notes(step: "Planned", commit: str) -> list[str]:
    """What a plan adds: what became of the source, and that other code made what is stored."""
    from workflows.engine.provenance import Code

    notes = [step.seen.note] if step.seen.note else []
    made_by = step.last.get("commit") if step.state == "CACHED" else None
    if made_by and made_by != commit:
        notes.append(f"made by commit {Code(made_by)}, now {Code(commit)}")
    return notes


def status(args: argparse.Namespace) -> None:
    """What is there, when it was made, how long it took, its result and its run."""
    here = given(args)
    planned, counts = _planned(here)
    here.announce(Console())
    _tell_of_damage(here, planned)
    shown = [step for step in planned if not step.stage.optional or step.state != "MISSING"]
    rows = [_status_row(step, here.config, counts) for step in shown]
    if args.json:
        tell(*_json([row | {"mlflow_ui": here.ui()} for row in rows]))
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
            "; ".join([*row["reasons"], *([row["result"]] if row["result"] else [])]),
        ]
        for row in rows
    ]
    tell(*table([heading, *cells]), *(step.seen.note for step in planned if step.seen.note))
    if any(row["mlflow_run_id"] for row in rows):
        tell(f"the MLflow runs: {here.ui()}")


def show_config(args: argparse.Namespace) -> None:
    """The resolved configuration as a file that --config takes back; or the keys asked for, explained."""
    here = given(args)
    said = configuration.explain(here.config, args.keys) or configuration.dump(here.config).rstrip("\n").split("\n")
    here.announce(Console())
    tell(*said)


def show_recipes(args: argparse.Namespace) -> None:
    """The recipes, what they cost and what to expect."""
    for name, recipe in recipes.RECIPES.items():
        tell(name, *(f"    {line.strip()}" for line in (recipe.__doc__ or "").strip().splitlines()))


def ui(args: argparse.Namespace) -> int:
    """Serves the MLflow UI until interrupted."""
    from workflows.commands.ui import serve

    here = given(args)
    return serve(here.config.tracking, here.root, args.port, ready=lambda: here.announce(Console()))


def doctor(args: argparse.Namespace) -> int | None:
    """Looks at this machine; fails where something is wrong."""
    from workflows.commands.doctor import examine

    here = given(args)
    here.announce(Console())
    findings = examine(here.config, here.root)
    if args.json:
        tell(*_json([vars(finding) for finding in findings]))
    else:
        tell(*table([["what", "verdict", "found"], *([f.what, f.verdict, f.text] for f in findings)]))
    return FAILED if any(finding.verdict == "wrong" for finding in findings) else None


def clean(args: argparse.Namespace) -> None:
    """Lists what may go and, with --yes, removes it."""
    from workflows.commands import leftovers as cleaning

    here = given(args)
    planned, _ = _planned(here)
    wanted = cleaning.Wanted(tuple(args.outputs), args.finished, args.older_than * 3600)
    found = cleaning.leftovers(planned, here.config, here.places(), wanted)
    here.announce(Console())
    for leftover in found:
        tell(f"{leftover.where}  {size(leftover.num_bytes)}  {leftover.why}")
        if args.yes:
            leftover.remove()
    if args.finished and (shared := cleaning.in_stores(planned, here.places())):
        tell(f"{shared} finished outputs in stores stay, since other roots may need them; they go by name")
    total = size(sum(leftover.num_bytes for leftover in found))
    if not found:
        tell("nothing to remove")
    else:
        tell(
            f"{'removed' if args.yes else 'would remove'} {len(found)}, {total}"
            + ("" if args.yes else "; --yes does it")
        )


def verify(args: argparse.Namespace) -> int | None:
    """Reads again all that is finished, a Ray task for each shard or file of features; fails where some is damaged."""
    from workflows.commands import verifying
    from workflows.compute.on_ray import OnRay

    here, console, failed = given(args), Console(), False
    planned = _planned(here)[0]
    if planned[0].state != "CACHED":
        way_out = f"run `{here.command('ingest')}`"
        raise UsageError(f"nothing to verify: ingest is {planned[0].state} for this configuration; {way_out}")
    here.announce(console)
    with contextlib.closing(OnRay(here.config.ray, console.say, debug=args.debug)) as compute:
        for stage, folder, problems in verifying.verified(planned, compute.map):
            failed = failed or bool(problems)
            if not problems:
                tell(f"{folder.where()}: every file is as it was written")
                continue
            tell(*(line for lines in problems.values() for line in lines))
            tell(f"{len(problems)} damaged: {verifying.way_out(stage, here.command)}")
    return FAILED if failed else None


def predict(args: argparse.Namespace) -> int | None:
    """The five likeliest classes of image files, with bars; fails where some could not be looked at."""
    from workflows.commands.classify import predictions

    here, found = given(args), []
    model = _model_folder(here)
    if not args.model:  # else the configuration has no part in it
        here.announce(Console())
    with model.as_local() as folder:
        for image in predictions(folder, args.images, here.config):
            found.append(image)
            if image.problem:
                tell(f"alexnet: {image.path}: {image.problem}", file=sys.stderr)
            elif not args.json:
                tell(image.path, *(_bar(guess.probability, guess.title) for guess in image.guesses))
    if args.json:
        tell(*_json([_prediction(image) for image in found]))
    return FAILED if any(image.problem for image in found) else None


def _bar(probability: float, title: str) -> str:
    return f"  {probability:6.1%}  {'█' * round(probability * 30):30}  {title}"


def _prediction(image: "Predicted") -> dict[str, Any]:
    if image.problem:
        return {"image": image.path, "problem": image.problem}
    return {"image": image.path, "classes": [guess._asdict() for guess in image.guesses]}


def search(args: argparse.Namespace) -> int | None:
    """The stored images nearest to image files, and a picture of them; fails where some could not be looked at."""
    from workflows.commands import searching

    here = given(args)
    features = _newest_features(here)
    here.announce(Console())
    coded = searching.Coded(_codes_of(here, features), args.codes) if args.codes else None
    found = searching.search(features, here.places(), args.images, here.config, args.split, args.top, coded)
    answers = [answer for answer in found if not answer.problem]
    for answer in found:
        if answer.problem:
            tell(f"alexnet: {answer.path}: {answer.problem}", file=sys.stderr)
        elif not args.json:
            tell(answer.path, *(f"  {one.distance:10.4g}  {one.title}  {one.key}" for one in answer.neighbours))
    if args.json:
        tell(*_json([searching.as_json(answer) for answer in found]))
    if answers:
        picture = searching.draw(answers, here.root / "search.png")
        Console().say(f"picture: {picture}")
        if args.open:
            webbrowser.open(picture.as_uri())
    return FAILED if len(answers) < len(found) else None


def _newest_features(here: Given) -> "Output":
    """The newest finished features, whatever became of their source since; of a named configuration, its own."""
    way_out = f"run `{here.command('features')}`"
    if here.is_named:
        step = {step.stage.name: step for step in _planned(here)[0]}["features"]
        if step.state != "CACHED":
            raise UsageError(f"features is {step.state} for this configuration: {way_out}")
        return step.output
    taken = here.places().finished("features")
    if not taken:
        raise UsageError(f"no features are taken under {here.root}: {way_out}")
    return taken[0][0]


def _codes_of(here: Given, features: "Output") -> Folder:
    """The newest finished codes of these features."""
    for made, record in here.places().finished("codes"):
        if record["inputs"]["features"] == features.key:
            return made.folder
    raise UsageError(f"--codes: no codes are made of these features: run `{here.command('codes')}`")


def _model_folder(here: Given) -> Folder:
    """The exported model that was named, by folder or in the registry, else the newest that was trained here."""
    from workflows.engine.starts import model_folder

    named = here.args.model
    return model_folder(f"--model {named}", named, here.config, here.places()) if named else _newest_model(here)


def _newest_model(here: Given) -> Folder:
    """Of the newest finished training, whatever became of its source since; of a named configuration, its own."""
    if here.is_named:
        train = {step.stage.name: step for step in _planned(here)[0]}["train"]
        if train.state != "CACHED":
            way_out = f"run `{here.command('run')}`, or name a --model"
            raise UsageError(f"train is {train.state} for this configuration: {way_out}")
        return train.output.folder.child(MODELS["last"])
    trained = here.places().finished("train")
    if not trained:
        raise UsageError(f"nothing is trained under {here.root}: run `{here.command('run')}`, or name a --model")
    return trained[0][0].folder.child(MODELS["last"])


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


def _planned(here: Given, anew: bool = False) -> tuple[list["Planned"], dict[str, int]]:
    """The stages, and images by split; nothing is changed."""
    from workflows.compute.on_ray import OnRay
    from workflows.engine import estimate
    from workflows.engine import plan as planning

    with contextlib.closing(OnRay(here.config.ray, Console().say)) as compute:  # which starts for large archives only
        planned = planning.plan(STAGES, here.config, here.places(), anew=anew, in_tasks=compute.map)
    return planned, estimate.counts_of(planned)


def _tell_of_damage(here: Given, planned: list["Planned"]) -> None:
    """Names the damaged records of other configurations; that of a planned output is the reason of its state."""
    mine = {step.output.folder.url for step in planned}
    for output in (output for name in NAMES for output in here.places().outputs(name)):
        if output.folder.url not in mine and (damage := output.damage):
            way_out = f"`{here.command('clean')} {output.stage}/{output.key}` offers to remove it"
            Console().say(f"passing over {damage}: {way_out}")


def _status_row(step: "Planned", config: RunConfig, counts: dict[str, int]) -> dict[str, Any]:
    from workflows.engine import estimate

    record = step.last if step.state == "CACHED" else {}
    left = estimate.left(step, config, counts)
    return {
        "stage": step.stage.name,
        "state": step.state,
        "key": step.output.key,
        "path": step.output.folder.where(),
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


def _json(rows: list[dict[str, Any]]) -> list[str]:
    import json

    return json.dumps(rows, indent=1, default=str).split("\n")
