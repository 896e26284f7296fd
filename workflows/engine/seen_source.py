"""What a workflow starts from, beside its configuration: the source's content, and weights that it did not train.

A look takes what was last ingested; only a plan or an ingest lists the source, and only an ingest records it.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.specs import ImportedSpec
from pipelines.storage import Folder, redacted
from workflows.config import RunConfig, UsageError, digest, keys
from workflows.engine.outputs import INDEX, Places
from workflows.engine.stage import Seen
from workflows.engine.starts import model_folder
from workflows.folders import PROBABILITIES

if TYPE_CHECKING:
    from pipelines.sources.cache import InTasks

_NEWER = (
    "files of the source are newer than what was ingested, with the same names, sizes and samples of their contents: "
    "if they were replaced, `alexnet run --redo ingest` takes them"
)
_TOUCHED = "the source was touched since it was ingested: `alexnet plan` says whether it changed"
_WEIGHTS = "model.safetensors"
_NAMES = ("ingest.source", "ingest.labels", "ingest.val_fraction", "ingest.val_from")  # what a listing depends on


def see_source(config: RunConfig, places: Places, anew: bool, in_tasks: "InTasks" = map) -> Seen:
    """The source's fingerprint, its images by split and its number of classes: as last ingested, or as it is now.

    Raises:
        UsageError: The source is there and damaged, or it is not there and never was ingested.
    """
    from pipelines.sources.catalog import is_there, open_source
    from pipelines.sources.contents import files_now

    known = _known(config, places)
    if known and not anew:
        return replace(known, note=_touched(config, known))
    try:
        source = open_source(config.ingest, places.index, in_tasks)
    except (ValueError, OSError) as error:
        if known and not is_there(config.ingest.source):
            return replace(known, note=f"{redacted(config.ingest.source)} is gone: what was ingested of it is used")
        raise UsageError(str(error)) from error
    counts = {name: table.num_rows for name, table in source.splits.items()}
    facts = {"counts": counts, "classes": len(source.class_names), "newest_ns": files_now(source).newest_ns}
    now = Seen({"source": source.fingerprint}, facts | {"touched_ns": _touched_ns(config)})
    return replace(now, note=_change(known, now) or _newer(now, places)) if known else now


def record_source(config: RunConfig, places: Places, seen: Seen) -> None:
    """This is what was ingested last: later looks take it."""
    text = json.dumps({"identity": seen.identity, "facts": seen.facts})
    path = _path(config, places)
    if not path.is_file() or path.read_text() != text:
        Folder.at(path.parent).write(path.name, text)


def see_training(config: RunConfig, places: Places, anew: bool, in_tasks: "InTasks" = map) -> Seen:
    """The digest of the weights that training starts from, where it starts from any; that of a user's network's file.

    Raises:
        UsageError: They are not there, and no training here was made with them.
    """
    weights, code = _weights(config, places), _code(config, places)
    notes = "; ".join(seen.note for seen in (weights, code) if seen.note)
    return Seen(weights.identity | code.identity, weights.facts | code.facts, notes)


def _weights(config: RunConfig, places: Places) -> Seen:
    name = config.train.init_from
    if not name:
        return Seen()
    try:
        folder = model_folder(f"train.init_from={name}", name, config, places)
        return Seen({"init_from": _digest_of_weights(folder)}, {"init_from": redacted(folder.url)})
    except (OSError, UsageError) as error:
        for facts in places.begun("train"):
            if facts.get("ignored", {}).get("train.init_from") == name:
                return Seen({"init_from": facts["ingredients"]["init_from"]}, note=f"{name} is gone")
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"train.init_from={name}: no {_WEIGHTS} there; name the folder of an exported model, such as "
            "RUNS/train/KEY/model, models:/NAME@ALIAS, or RECIPE@newest"
        ) from error


def _code(config: RunConfig, places: Places) -> Seen:
    if not isinstance(config.net, ImportedSpec):
        return Seen()
    from model.imported import Changed, source_digest

    try:
        return Seen({"net.code": source_digest(config.net)})
    except Changed as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        for facts in places.begun("train"):
            if facts["ingredients"].get("net.kind") == config.net.kind and "net.code" in facts["ingredients"]:
                return Seen({"net.code": facts["ingredients"]["net.code"]}, note=f"{config.net.kind} is gone")
        raise UsageError(str(error)) from error


def see_evaluation(config: RunConfig, places: Places, anew: bool, in_tasks: "InTasks" = map) -> Seen:
    """The digests of the weights of all models that are averaged with the trained one, and of what is left out.

    Raises:
        UsageError: One of them is not there.
    """
    models, left_out = _models(config, places), _left_out(config, places)
    return Seen(models.identity | left_out.identity, note=left_out.note)


def _left_out(config: RunConfig, places: Places) -> Seen:
    name = config.evaluate.leave_out
    if not name:
        return Seen()
    try:
        folder, file = Folder.at(name).split()
        return Seen({"left_out": folder.sha256(file)})
    except OSError as error:
        for facts in places.begun("evaluate"):
            if facts.get("ignored", {}).get("evaluate.leave_out") == redacted(name):
                return Seen({"left_out": facts["ingredients"]["left_out"]}, note=f"{redacted(name)} is gone")
        raise UsageError(
            f"evaluate.leave_out={redacted(name)}: no such file; name a Parquet file that lists images by split, id "
            "and key, such as RUNS/neighbours/KEY/duplicates.parquet"
        ) from error


def _models(config: RunConfig, places: Places) -> Seen:
    found = {}
    for name in config.evaluate.models:
        said = f"evaluate.models={redacted(name)}"
        folder = model_folder(said, name, config, places)
        try:
            found[redacted(name)] = _digest_of_what_was_said(folder) or _digest_of_weights(folder)
        except OSError as error:
            raise UsageError(
                f"{said}: no {_WEIGHTS} there, nor {PROBABILITIES}; name the folder of an exported model, of a "
                "baseline, or of an evaluation with evaluate.keep_probabilities"
            ) from error
    return Seen({"models": ", ".join(f"{name} {digest}" for name, digest in found.items())} if found else {})


def _known(config: RunConfig, places: Places) -> Seen | None:
    """What was last ingested of the source from this root, else by any root that uses the store."""
    try:
        found = json.loads(_path(config, places).read_text())
        return Seen(found["identity"], found["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    wanted = _how(config)
    for facts in places.begun("ingest"):
        made_with = {**facts["ingredients"], **facts.get("ignored", {})}
        if all(made_with.get(name, keys()[name].default) == value for name, value in wanted.items()):
            return Seen({"source": facts["ingredients"]["source"]}, facts.get("facts", {}))
    return None


def _change(known: Seen, now: Seen) -> str:
    if known.identity == now.identity:
        return ""
    counts = [" ".join(f"{split} {n:,}" for split, n in _counts(seen).items()) for seen in (known, now)]
    told = f": {counts[0]} -> {counts[1]}" if counts[0] != counts[1] else ""
    return f"the source has changed since it was ingested{told}"


def _digest_of_weights(folder: Folder) -> str:
    return hashlib.sha256(folder.read(_WEIGHTS)).hexdigest()


def _digest_of_what_was_said(folder: Folder) -> str:
    """Of the probabilities that a baseline or an evaluation kept; empty where there are none."""
    return "" if folder.size(PROBABILITIES) is None else folder.sha256(PROBABILITIES)


def _newer(now: Seen, places: Places) -> str:
    """That a file was changed since the newest output of this source was begun."""
    source = now.identity["source"]
    outputs = (output for output in places.begun("ingest") if output["ingredients"].get("source") == source)
    was = next((output.get("facts", {}).get("newest_ns") for output in outputs), None)
    return _NEWER if was is not None and was < now.facts["newest_ns"] else ""


def _touched(config: RunConfig, known: Seen) -> str:
    """What a look that lists nothing can say: that a file or folder at the source's top is not as old as it was."""
    was = known.facts.get("touched_ns")
    return _TOUCHED if was and _touched_ns(config) > was else ""


def _touched_ns(config: RunConfig) -> int:
    """When the source, or what lies directly in it, was last changed; 0 where that is not known at once."""
    source = Folder.at(config.ingest.source)
    if config.ingest.source == "demo" or not source.is_local:
        return 0
    path = source.local_path()
    try:
        return max(place.stat().st_mtime_ns for place in (path, *(path.iterdir() if path.is_dir() else ())))
    except OSError:  # gone, or a link to nowhere in it
        return 0


def _counts(seen: Seen) -> dict[str, int]:
    return seen.facts.get("counts", {})


def _how(config: RunConfig) -> dict[str, Any]:
    spec = config.ingest
    return dict(zip(_NAMES, (redacted(spec.source), spec.labels, spec.val_fraction, spec.val_from), strict=True))


def _path(config: RunConfig, places: Places) -> Path:
    return places.root / INDEX / f"seen-{digest(_how(config))[:16]}.json"
