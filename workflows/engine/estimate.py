"""How long and how large what is left will be, from the rates that were last measured here."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from model.networks import num_features
from pipelines.names import SPLITS
from workflows.config import RunConfig, values
from workflows.engine.outputs import Places
from workflows.engine.plan import Planned
from workflows.folders import CHECKPOINTS

DISK_MARGIN = 1.1  # room asked for, as a multiple of the predicted bytes
RATE_KEYS: tuple[str, ...] = ("net.", "train.batch_size", "train.precision", "evaluate.views")
RATE_KEYS += ("ingest.size", "ingest.encoding", "ingest.quality", "fisher.", "sparse.")
_SHARD = re.compile(r"(train|val|test)-(\d+)-of-(\d+).*\.json")  # the record that a finished shard gets
_BLOCK = re.compile(r"features-\d+-of-(\d+)\.parquet")  # neighbours of a block of images
_CHECKPOINT = re.compile(r"step-(\d+)/checkpoint\.json")  # here without torch, which `model.checkpoint` imports


@dataclass(frozen=True)
class Left:
    """How much of an interrupted stage is done."""

    done: int
    total: int
    unit: str
    images_done: int  # of neighbours pairs of images

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.unit} done, {self.total - self.done} to do"


@dataclass(frozen=True)
class Prediction:
    """What a stage still has to do; None where nothing like it was measured yet."""

    units: int  # images, counted as often as they are seen; of neighbours pairs of images
    seconds: float | None
    num_bytes: int | None  # of baselines what they hold until they are done
    shards: int | None  # of ingest, or files of features


def predict(step: Planned, config: RunConfig, where: Places, counts: dict[str, int]) -> Prediction:
    """For a stage that is not CACHED. `counts` are images by split."""
    so_far = left(step, config, counts)
    units = max(0, _units(step, config, counts) - (so_far.images_done if so_far else 0))
    like = _alike(step, config, where)
    seconds = units * like["seconds"] / like["units"] if like else None
    if step.stage.name in ("fisher", "sparse"):
        return Prediction(units, seconds, round(units * _encoded_bytes_each(step, config, like)), None)
    if step.stage.name not in ("ingest", "features"):
        return Prediction(units, seconds, None, None)
    splits = config.features.splits if step.stage.name == "features" else SPLITS
    shards = so_far.total - so_far.done if so_far else sum(_num_shards(config, counts, splits).values())
    each = _feature_bytes_each(config, like) if step.stage.name == "features" else _bytes_each(config, like)
    return Prediction(units, seconds, round(units * each), shards)


def left(step: Planned, config: RunConfig, counts: dict[str, int]) -> Left | None:
    """Of PARTIAL ingest and features the shards, of a PARTIAL train the steps; None for other states and stages."""
    if step.state != "PARTIAL":
        return None
    match step.stage.name:
        case "ingest":
            return _shards_left(step, config, counts)
        case "train":
            return _steps_left(step, config, counts)
        case "features":
            return _files_left(step, config, counts)
        case "neighbours":
            return _blocks_left(step, _units(step, config, counts))
        case _:
            return None


def counts_of(planned: list[Planned]) -> dict[str, int]:
    """Images by split: stored ones where ingest is done, else listed ones."""
    ingest = planned[0]
    if ingest.state == "CACHED":
        metrics = ingest.last["metrics"]
        return {split: metrics[f"images_{split}"] for split in SPLITS if f"images_{split}" in metrics}
    counts, limit = ingest.seen.facts.get("counts", {}), ingest.ingredients.get("ingest.limit")
    return {split: min(count, limit) if limit else count for split, count in counts.items()}


def _units(step: Planned, config: RunConfig, counts: dict[str, int]) -> int:
    train = counts.get("train", 0)
    match step.stage.name:
        case "ingest":
            return sum(counts.values())
        case "stats":
            return train
        case "train":
            return round(train * config.train.epochs)
        case "evaluate":
            return counts.get(config.evaluate.split, 0)
        case "features":
            return sum(counts.get(split, 0) for split in config.features.splits)
        case "neighbours":
            return counts.get(config.neighbours.split, 0) * train
        case "codes":
            return 2 * len(config.codes.bits) * config.codes.epochs * train
        case "fisher" | "sparse":
            return sum(counts.get(split, 0) for split in {"train", config.evaluate.split})
        case _:
            return 1


def _num_shards(config: RunConfig, counts: dict[str, int], splits: tuple[str, ...] = SPLITS) -> dict[str, int]:
    """By split."""
    return {split: -(-counts.get(split, 0) // config.ingest.rows_per_shard) for split in splits}


def _shards_left(step: Planned, config: RunConfig, counts: dict[str, int]) -> Left:
    rows, shards, images = config.ingest.rows_per_shard, 0, 0
    for entry in step.output.folder.child("parts").files():
        if shard := _SHARD.match(entry.name):
            shards += 1
            images += max(0, min(rows, counts.get(shard[1], 0) - int(shard[2]) * rows))
    return Left(shards, sum(_num_shards(config, counts).values()), "shards", images)


def _files_left(step: Planned, config: RunConfig, counts: dict[str, int]) -> Left:
    done, total = Counter[str](), _num_shards(config, counts, config.features.splits)
    for entry in step.output.folder.child("parts").files():
        if shard := _SHARD.match(entry.name):
            done[shard[1]] += 1
            total[shard[1]] = int(shard[3])  # which stored images, fewer than listed ones, may not say
    images = sum(counts.get(split, 0) * done[split] // total[split] for split in done)
    return Left(done.total(), sum(total.values()), "shards", images)


def _blocks_left(step: Planned, units: int) -> Left | None:
    """None where no block of queries is done yet: how many there are depends on what they run on."""
    entries = step.output.folder.child("parts").files()
    totals = Counter(int(block[1]) for entry in entries if (block := _BLOCK.fullmatch(entry.name)))
    total, done = max(totals.items(), default=(0, 0))
    return Left(done, total, "blocks", units * done // total) if total else None


def _steps_left(step: Planned, config: RunConfig, counts: dict[str, int]) -> Left:
    from pipelines.order import num_batches

    images, batch = counts.get("train", 0), config.train.batch_size
    each = num_batches(images, batch)
    files = [entry.name for entry in step.output.folder.child(CHECKPOINTS).files(recursive=True)]
    done = max((int(match[1]) for match in map(_CHECKPOINT.fullmatch, files) if match), default=0)
    epochs, steps = divmod(done, each) if each else (0, 0)
    return Left(done, round(each * config.train.epochs), "steps", epochs * images + steps * batch)


def _alike(step: Planned, config: RunConfig, where: Places) -> dict[str, Any] | None:
    """The newest record of the stage whose rate holds for this one: the same network, batch and stored images."""
    wanted = values(config)

    def is_alike(record: dict[str, Any]) -> bool:
        was = _all_ingredients(record, where)
        same = all(value == wanted.get(name) for name, value in was.items())
        return bool(record["units"]) and same and record["ingredients"].get("source") == step.ingredients.get("source")

    return next((record for _, record in where.finished(step.stage.name) if is_alike(record)), None)


def _all_ingredients(record: dict[str, Any], where: Places) -> dict[str, Any]:
    """The configuration keys that a record and its inputs' records were made with."""
    known = dict(record["ingredients"])
    for name, key in record["inputs"].items():
        known |= (where.output(name, key).record or {"ingredients": {}})["ingredients"]
    return {name: value for name, value in known.items() if name.startswith(RATE_KEYS) and not name.endswith(".seed")}


def _bytes_each(config: RunConfig, like: dict[str, Any] | None) -> float:
    """Bytes that an image will take: as the like of it did, else by a rule for photographs."""
    from pipelines.plan import predicted_bytes

    if like and (stored := sum(like["metrics"].get(f"images_{split}", 0) for split in SPLITS)):
        return like["metrics"]["bytes"] / stored
    return predicted_bytes(1, config.ingest)


def _encoded_bytes_each(step: Planned, config: RunConfig, like: dict[str, Any] | None) -> float:
    """Bytes that an image takes until a baseline is done: as of the like of it, else as if nothing was compressed."""
    measured = like and like["metrics"].get("encoded_bytes_per_image")
    return measured or getattr(config, step.stage.name).encoded_bytes


def _feature_bytes_each(config: RunConfig, like: dict[str, Any] | None) -> float:
    """Bytes that an image's features will take: as the like of it did, else as if they could not be compressed."""
    if like and like["ingredients"]["features.dtype"] == config.features.dtype:
        return like["metrics"]["bytes"] / sum(like["metrics"].get(f"images_{split}", 0) for split in SPLITS)
    return num_features(config.net) * (2 if config.features.dtype == "float16" else 4)
