"""The workflow's five stages: what each reads and what it needs. Their code is imported only when they run."""

import json
from pathlib import Path
from typing import Any

from workflows.config import RunConfig, UsageError, digest, select
from workflows.stage import Stage, write_atomically

INDEX = "index"  # folder under the root: listings of archives, and the last known fingerprints of sources


def source_identity(config: RunConfig, root: Path) -> dict[str, str]:
    """The source's fingerprint: by its content now, or the last known one where the source is gone or out of reach.

    Raises:
        UsageError: The source is there and damaged, or it is not there and never was read.
    """
    from pipelines.sources.catalog import is_there, open_source

    known = known_source(config, root)
    try:
        source = open_source(config.ingest, root / INDEX)
    except (ValueError, OSError) as error:
        if known and not is_there(config.ingest.source):
            return {"source": known["fingerprint"]}
        raise UsageError(str(error)) from error
    now = {"fingerprint": source.fingerprint, "counts": {name: t.num_rows for name, t in source.splits.items()}}
    if known != now:
        write_atomically(_known_path(config, root), json.dumps(now))
    return {"source": source.fingerprint}


def known_source(config: RunConfig, root: Path) -> dict[str, Any]:
    """What was last seen of the source: its fingerprint and its images by split; nothing if it was never read."""
    path = _known_path(config, root)
    return json.loads(path.read_text()) if path.is_file() else {}


def _known_path(config: RunConfig, root: Path) -> Path:
    name = digest(select(config, ("ingest.source", "ingest.labels", "ingest.val_fraction")))
    return root / INDEX / f"seen-{name[:16]}.json"


def weights_identity(config: RunConfig, root: Path) -> dict[str, str]:
    """The digest of the weights that training starts from, where it starts from any."""
    if not config.train.init_from:
        return {}
    import hashlib

    path = Path(config.train.init_from).expanduser() / "model.safetensors"
    try:
        with path.open("rb") as file:
            return {"init_from": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UsageError(
            f"train.init_from={config.train.init_from}: no {path.name} there; name the folder of an exported model, "
            "such as RUNS/train/KEY/model"
        ) from error


STAGES = (
    Stage(
        "ingest",
        version=1,
        module="workflows.stages.ingest",
        reads=("ingest.*",),
        ignores=("ingest.source", "ingest.check_md5", "ingest.max_bad"),
        identity=source_identity,
    ),
    Stage("stats", version=2, module="workflows.stages.stats", needs=("ingest",)),
    Stage(
        "train",
        version=1,
        module="workflows.stages.train",
        needs=("ingest", "stats"),
        reads=("net.*", "train.*", "loader.*"),
        ignores=(
            "train.placement",
            "train.checkpoint_every_steps",
            "train.keep_checkpoints",
            "train.eval_batch_size",
            "train.init_from",
            "train.replicas",
            "train.stall_steps",
            "loader.threads",
        ),
        identity=weights_identity,
    ),
    Stage(
        "evaluate",
        version=1,
        module="workflows.stages.evaluate",
        needs=("ingest", "stats", "train"),
        reads=("evaluate.split", "evaluate.weights"),
    ),
    Stage(
        "report",
        version=1,
        module="workflows.stages.report",
        needs=("ingest", "stats", "train", "evaluate"),
        reads=("recipe",),
    ),
)
NAMES = tuple(stage.name for stage in STAGES)
