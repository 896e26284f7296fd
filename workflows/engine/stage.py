"""What a stage is: its key, what it reads and needs, and what its function is given.

A key digests the stage's VERSION (raised by hand when its results change), the configuration keys it reads and the keys
of its inputs.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage import Folder
from workflows.config import RunConfig, UsageError, digest, select
from workflows.engine.outputs import Output, Places

if TYPE_CHECKING:
    from pipelines.sources.cache import InTasks
    from workflows.compute.workers import Compute
    from workflows.console import Console
    from workflows.tracking.tracker import StageRun, Untracked

KEY_DIGITS = 16


@dataclass(frozen=True)
class Seen:
    """What an output depends on beside configuration and inputs, as it is now or as it was last known.

    Attributes:
        identity: Content, by name: a source's fingerprint, the digest of weights.
        facts: What else is known of it, such as a source's images by split.
        note: What a plan says of it, such as that it is gone.
    """

    identity: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Stage:
    """One step of the workflow.

    Attributes:
        version: Raised by hand when the results change for the same configuration and inputs.
        needs: Names of the stages whose outputs it reads.
        reads: Configuration keys that its results depend on; `section.*` for all of a section.
        ignores: Keys of those sections that its results do not depend on; the record keeps them.
        by_content: Keys that name what its results depend on, such as a model: its key has the content from `see`.
        module: Where its function is: `run(context) -> summary` with result, metrics, units, the files that others read
            (and other_files, which people look at) and how it was made (device, workers).
        see: Looks at what the results depend on beside configuration and inputs: `see(config, places, anew, in_tasks)`.
            Unless it is asked to look anew, what the last outputs were made of will do; `in_tasks` maps over long work.
        saw: Keeps what was seen, once an output that depends on it is there or begun.
        optional: No part of `alexnet run`: its own command makes it, and what it needs.
        command: That command, where it is not the stage's name.
    """

    name: str
    version: int
    module: str
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    by_content: tuple[str, ...] = ()
    see: Callable[[RunConfig, Places, bool, "InTasks"], Seen] | None = None
    saw: Callable[[RunConfig, Places, Seen], None] | None = None
    optional: bool = False
    command: str = ""

    @property
    def not_in_key(self) -> tuple[str, ...]:
        """Keys whose values are no part of its key."""
        return self.ignores + self.by_content

    @property
    def verb(self) -> str:
        """The command that makes it alone."""
        return self.command or self.name

    def load(self) -> Any:
        """The stage's module, imported only when there is something to do."""
        return importlib.import_module(self.module)

    def ingredients(self, config: RunConfig, identity: dict[str, str], inputs: dict[str, str]) -> dict[str, Any]:
        """All that the key is a digest of, by readable name."""
        return {
            "version": self.version,
            **select(config, self.reads, self.not_in_key),
            **identity,
            **{f"input.{name}": key for name, key in sorted(inputs.items())},
        }


def key_of(stage: Stage, ingredients: dict[str, Any]) -> str:
    """The stage's key: 16 hexadecimal digits."""
    return digest({"stage": stage.name, **ingredients})[:KEY_DIGITS]


@dataclass(frozen=True)
class Context:
    """What a stage's function is given."""

    config: RunConfig
    root: Path
    output: Output
    ingredients: dict[str, Any]  # of the output's key
    inputs: dict[str, Output]
    compute: "Compute"
    run: "StageRun | Untracked"
    console: "Console"

    @property
    def folder(self) -> Folder:
        return self.output.folder

    @property
    def trained_in(self) -> str:
        """The precision of the training among the inputs: `train.precision`, or what its `auto` was there."""
        asked = self.config.train.precision
        return asked if asked != "auto" else self.inputs["train"].require_record()["made_with"]["precision"]

    def log_files(self, *names: str, to: str | None = None) -> None:
        """These files of the output become artifacts of the run, in its folder `to`."""
        with self.folder.as_local(*names) as here:
            for name in names:
                self.run.artifact(here / name, to)


def digests(folder: Folder, names: tuple[str, ...]) -> dict[str, str]:
    """sha256 of files, for the record."""
    return {name: folder.sha256(name) for name in names}


def require_as_made(inputs: dict[str, Output]) -> None:
    """UsageError where a file that a stage will read is not the one that its maker recorded."""
    for name, output in inputs.items():
        for _, problem in damaged_files(output, ("files",)):
            raise UsageError(f"{problem}: `alexnet {name} --redo {name}` makes it again")


def damaged_files(output: Output, kinds: tuple[str, ...] = ("files", "other_files")) -> Iterator[tuple[str, str]]:
    """The files that are not as the stage recorded them, each with what is wrong with it."""
    recorded = [item for kind in kinds for item in (output.record or {}).get(kind, {}).items()]
    for file, made in recorded:
        where = output.folder.where(file)
        try:
            found = output.folder.sha256(file)
        except FileNotFoundError:
            yield file, f"{where} is gone, which stage {output.stage} made"
            continue
        if found != made:
            differs = f"sha256 {found[:12]}, not {made[:12]}"
            yield file, f"{where} is not the file that stage {output.stage} made ({differs})"
