"""What `alexnet verify` reads again: shards and files of features, a Ray task each; what other stages recorded."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pipelines import features, manifest, shards, verify
from pipelines.storage import Folder
from workflows.engine.outputs import Output
from workflows.engine.plan import Planned
from workflows.engine.stage import Stage, damaged_files

Each = Callable[[Callable, Iterable], Iterable]


class Checked(NamedTuple):
    """Of a stage with many files: how they are read again, and how damaged ones are made again."""

    problems_by_file: Callable[[Folder, Each], dict[str, list[str]]]
    forget: Callable[[Folder, Iterable[str]], None]
    record: str  # the file that lists them


CHECKED = {
    "ingest": Checked(verify.problems_by_file, shards.forget, manifest.MANIFEST),
    "features": Checked(features.problems_by_file, features.forget, features.FILES),
}


class Verified(NamedTuple):
    """An output that was read again, and what is wrong with it."""

    stage: Stage
    folder: Folder
    problems: dict[str, list[str]]  # by file


def verified(planned: list[Planned], each: Each) -> Iterator[Verified]:
    """The finished outputs. One of many files that is damaged counts as begun then: its stage writes those anew."""
    for step in planned:
        if step.state == "CACHED":
            yield Verified(step.stage, step.output.folder, _problems(step.output, each))


def way_out(stage: Stage, command: Callable[..., str]) -> str:
    """How what is damaged is made again; `command` makes a command line of the words that it begins with."""
    verb = stage.verb.split()
    if stage.name in CHECKED:
        return f"`{command(*verb)}` writes anew what is damaged, and only that"
    return f"`{command(*verb, '--redo', stage.name)}` makes it again"


def _problems(output: Output, each: Each) -> dict[str, list[str]]:
    recorded = {file: [problem] for file, problem in damaged_files(output)}
    if output.stage not in CHECKED:
        return recorded
    checked = CHECKED[output.stage]
    problems = checked.problems_by_file(output.folder, each)
    for lines in (lines for file, lines in recorded.items() if file not in problems):
        problems.setdefault(checked.record, []).extend(lines)
    if problems:
        output.reopen()
        checked.forget(output.folder, problems)
    return problems
