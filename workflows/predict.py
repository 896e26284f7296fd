"""How long and how large what is left will be, from the rates that were last measured here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.catalog import INDEX, known_source
from workflows.config import RunConfig
from workflows.plan import Planned


@dataclass(frozen=True)
class Prediction:
    """What a stage still has to do; None where nothing was measured yet."""

    units: int  # images, counted as often as they are seen
    seconds: float | None
    num_bytes: int | None


def predict(step: Planned, config: RunConfig, root: Path, counts: dict[str, int]) -> Prediction:
    """For a stage that is not CACHED. `counts` are images by split."""
    units = _units(step, config, root, counts)
    last = step.last or {}
    rate = last["seconds"] / last["units"] if last.get("units") else None
    return Prediction(units, None if rate is None else units * rate, _bytes(step, config, counts, last))


def counts_of(planned: list[Planned], config: RunConfig, root: Path) -> dict[str, int]:
    """Images by split: stored ones where ingest is done, else listed ones."""
    ingest = planned[0]
    if record := ingest.output.record:
        prefix = "images_"
        metrics = record["metrics"]
        return {split: metrics[prefix + split] for split in ("train", "val", "test") if prefix + split in metrics}
    counts = known_source(config, root).get("counts", {})
    limit = config.ingest.limit
    return {split: min(count, limit) if limit else count for split, count in counts.items()}


def _units(step: Planned, config: RunConfig, root: Path, counts: dict[str, int]) -> int:
    train = counts.get("train", 0)
    match step.stage.name:
        case "ingest":
            return max(0, sum(counts.values()) - _kept(step, config, root))
        case "stats":
            return train
        case "train":
            return train * config.train.epochs
        case "evaluate":
            return counts.get(config.evaluate.split, 0)
        case _:
            return 1


def _kept(step: Planned, config: RunConfig, root: Path) -> int:
    """Images in the shards that an interrupted ingest has finished."""
    if step.state != "PARTIAL":
        return 0
    from pipelines.shards import finished_shards, plan_shards
    from pipelines.sources.catalog import open_source

    origin = plan_shards(open_source(config.ingest, root / INDEX), config.ingest, step.output.store).origin
    return sum(record.listed for record in finished_shards(step.output.store, origin).values())


def _bytes(step: Planned, config: RunConfig, counts: dict[str, int], last: dict[str, Any]) -> int | None:
    if step.stage.name == "ingest":
        from pipelines.plan import predicted_bytes

        each = predicted_bytes(1, config.ingest)
        if last and _same_encoding(last["ingredients"], step.ingredients):
            each = last["metrics"]["bytes"] / max(
                1, last["metrics"]["images_train"] + last["metrics"].get("images_val", 0)
            )
        return round(sum(counts.values()) * each)
    return last.get("metrics", {}).get("bytes")


def _same_encoding(old: dict[str, Any], new: dict[str, Any]) -> bool:
    names = ("ingest.size", "ingest.encoding", "ingest.quality")
    return json.dumps([old.get(n) for n in names]) == json.dumps([new.get(n) for n in names])
