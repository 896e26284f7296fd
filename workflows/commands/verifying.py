"""What `alexnet verify` reads again: shards and files of features, a Ray task each, against their records."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pipelines import features, manifest, shards, verify
from pipelines.storage import Folder
from workflows.config import UsageError
from workflows.engine.outputs import Output
from workflows.engine.plan import Planned
from workflows.engine.stage import require_as_made

Each = Callable[[Callable, Iterable], Iterable]


class Checked(NamedTuple):
    """Of a stage with many files: how they are read again, and how damaged ones are made again."""

    problems_by_file: Callable[[Folder, Each], dict[str, list[str]]]
    forget: Callable[[Folder, Iterable[str]], None]
    record: str  # the file that lists them
    as_made: str  # what to say where all is well


CHECKED = {
    "ingest": Checked(verify.problems_by_file, shards.forget, manifest.MANIFEST, "every shard is as the manifest says"),
    "features": Checked(features.problems_by_file, features.forget, features.FILES, "every file is as it was written"),
}


class Verified(NamedTuple):
    """An output that was read again, and what is wrong with it."""

    stage: str
    folder: Folder
    problems: dict[str, list[str]]  # by file


def verified(planned: list[Planned], each: Each) -> Iterator[Verified]:
    """The finished outputs of many files. One that is damaged counts as begun then: its stage writes those anew."""
    for step in planned:
        if step.stage.name in CHECKED and step.state == "CACHED":
            yield Verified(step.stage.name, step.output.folder, _problems(step.output, each))


def _problems(output: Output, each: Each) -> dict[str, list[str]]:
    checked = CHECKED[output.stage]
    problems = checked.problems_by_file(output.folder, each)
    try:
        require_as_made({output.stage: output})
    except UsageError as error:
        problems.setdefault(checked.record, []).append(str(error))
    if problems:
        output.reopen()
        checked.forget(output.folder, problems)
    return problems
