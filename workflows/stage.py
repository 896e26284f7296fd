"""What a stage is: its key, its folder, the record that says it is finished, and what its function is given.

A key digests the stage's VERSION (raised by hand when its results change), the configuration keys it reads and the keys
of its inputs. A stage is finished when `stage.json` stands in its folder; that file is written last.
"""

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage import Folder
from workflows.config import RunConfig, digest, select

if TYPE_CHECKING:
    from workflows.compute import Compute
    from workflows.console import Console
    from workflows.tracker import StageRun

RECORD = "stage.json"
KEY_DIGITS = 16


@dataclass(frozen=True)
class Stage:
    """One step of the workflow.

    Attributes:
        version: Raised by hand when the results change for the same configuration and inputs.
        needs: Names of the stages whose outputs it reads.
        reads: Configuration keys that its results depend on; `section.*` for all of a section.
        ignores: Keys of those sections that cannot change its results.
        module: Where its function is: `run(context) -> summary` with result, metrics and units.
        identity: Content that the results depend on beside configuration and inputs, such as a source's fingerprint.
    """

    name: str
    version: int
    module: str
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    identity: Callable[[RunConfig, Path], dict[str, str]] | None = None

    def load(self) -> Any:
        """The stage's module, imported only when there is something to do."""
        return importlib.import_module(self.module)

    def ingredients(self, config: RunConfig, identity: dict[str, str], inputs: dict[str, str]) -> dict[str, Any]:
        """All that the key is a digest of, by readable name."""
        return {
            "version": self.version,
            **select(config, self.reads, self.ignores),
            **identity,
            **{f"input.{name}": key for name, key in sorted(inputs.items())},
        }


def key_of(stage: Stage, ingredients: dict[str, Any]) -> str:
    """The stage's key: 16 hexadecimal digits."""
    return digest({"stage": stage.name, **ingredients})[:KEY_DIGITS]


@dataclass(frozen=True)
class Output:
    """Where a stage's results are, finished or not."""

    stage: str
    key: str
    folder: Path  # small files, always local
    store: Folder  # shards and checkpoints; the same folder unless `store` is set

    @property
    def record(self) -> dict[str, Any] | None:
        """What `stage.json` holds; None while the stage is not finished."""
        try:
            return json.loads((self.folder / RECORD).read_text())
        except FileNotFoundError:
            return None

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record, which makes the output a finished one and says where its store is, if not with it."""
        store = "" if self.store == Folder.at(self.folder) else self.store.url
        write_atomically(self.folder / RECORD, json.dumps({**record, "store": store}, indent=1) + "\n")

    def delete(self) -> None:
        """Remove all of it; the record first, so that what is half removed is not taken for finished."""
        (self.folder / RECORD).unlink(missing_ok=True)
        self.store.delete_all()
        shutil.rmtree(self.folder, ignore_errors=True)


def output_of(stage: str, key: str, config: RunConfig, root: Path) -> Output:
    """The place of a stage's output: `<root>/<stage>/<key>`, its store beside it or under the configured `store`.

    A finished output's store is where it was made, whatever is configured now.
    """
    folder = root / stage / key
    configured = Folder.at(config.store).child(stage).child(key) if config.store else Folder.at(folder)
    made = (Output(stage, key, folder, configured).record or {}).get("store", configured.url)
    return Output(stage, key, folder, Folder(made) if made else Folder.at(folder))


@dataclass(frozen=True)
class Context:
    """What a stage's function is given."""

    config: RunConfig
    root: Path
    output: Output
    inputs: dict[str, Output]
    compute: "Compute"
    run: "StageRun"
    console: "Console"

    @property
    def folder(self) -> Path:
        return self.output.folder


def write_atomically(path: Path, text: str) -> None:
    """The file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Folder.at(path.parent).publish(path.name, lambda file: file.write(text.encode()))
