"""The workflow's five stages, and those that are made on request: what each reads and what it needs.

Their code is imported only when they run.
"""

from workflows.config import BASELINES
from workflows.engine.seen_source import record_source, see_evaluation, see_source, see_training
from workflows.engine.stage import Stage

STAGES = (
    Stage(
        "ingest",
        version=2,  # the stored order; shards in a folder of their own, their records in Parquet
        module="workflows.stages.ingest",
        reads=("ingest.*",),
        ignores=("ingest.check_md5", "ingest.max_bad", "ingest.mixed_versions"),
        by_content=("ingest.source",),
        see=see_source,
        saw=record_source,
    ),
    Stage("stats", version=3, module="workflows.stages.stats", needs=("ingest",)),
    Stage(
        "train",
        version=3,  # checkpoints hold the paper's velocity
        module="workflows.stages.train",
        needs=("ingest", "stats"),
        reads=("net.*", "train.*", "loader.*"),
        ignores=(
            "train.device",
            "train.placement",
            "train.checkpoint_every_steps",
            "train.checkpoint_every_s",
            "train.keep_checkpoints",
            "train.eval_batch_size",
            "train.replicas",
            "train.stall_steps",
            "loader.threads",
        ),
        by_content=("train.init_from",),
        see=see_training,
    ),
    Stage(
        "evaluate",
        version=1,
        module="workflows.stages.evaluate",
        needs=("ingest", "stats", "train"),
        reads=(
            *("evaluate.split", "evaluate.weights", "evaluate.views", "evaluate.keep_probabilities"),
            "train.precision",  # also of a time when evaluation had none of its own
        ),
        by_content=("evaluate.models", "evaluate.leave_out"),
        see=see_evaluation,
    ),
    Stage(
        "report",
        version=1,
        module="workflows.stages.report",
        needs=("ingest", "stats", "train", "evaluate"),
        reads=("recipe",),
    ),
    Stage(
        "features",
        version=1,
        module="workflows.stages.features",
        needs=("ingest", "train"),
        reads=("features.*", "evaluate.weights"),
        ignores=("features.batch_size",),
        optional=True,
    ),
    Stage(
        "neighbours",
        version=1,
        module="workflows.stages.neighbours",
        needs=("ingest", "train", "features"),
        reads=("neighbours.*",),
        optional=True,
    ),
    Stage(
        "codes",
        version=1,
        module="workflows.stages.codes",
        needs=("ingest", "train", "features"),
        reads=("codes.*", "neighbours.split"),
        optional=True,
    ),
    *(
        Stage(
            name,
            version=2,  # it keeps its probabilities
            module="workflows.stages.baseline",
            needs=("ingest",),
            reads=(f"{name}.*", "evaluate.split"),
            optional=True,
            command=f"baseline {name}",
        )
        for name in BASELINES
    ),
)
NAMES = tuple(stage.name for stage in STAGES)
OF_A_RUN = tuple(stage.name for stage in STAGES if not stage.optional)


def needed_by(name: str) -> set[str]:
    """The stages whose outputs this one is made of, at first or second hand."""
    (needs,) = (stage.needs for stage in STAGES if stage.name == name)
    return {*needs}.union(*map(needed_by, needs))
