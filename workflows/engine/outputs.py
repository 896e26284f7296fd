"""Where outputs lie, and what is known of them: each a folder with all that its stage made and the records of how.

`begun.json` is written when the making begins: what is made, from what, by which code. `stage.json` is written last and
makes the output a finished one. Both lie with the output, in the store where there is one, so that every root that uses
the store knows the same. A redo is made beside its output (`KEY.redo`) and takes its place when it is finished.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage import Folder, redacted, without_redactions
from workflows.config import RunConfig

BEGUN, RECORD = "begun.json", "stage.json"
REDO = ".redo"  # after the key, in the name of a folder
INDEX = "index"  # folder in the root: listings of archives, and what was last ingested of each source
_PLACE = ".store"  # after the key: a file in the root that names the store in which the output lies
_OF_A_RECORD = ("stage", "key", "ingredients", "inputs", "finished", "seconds", "units", "metrics", "result")


@dataclass(frozen=True)
class Output:
    """A stage's output, finished or not."""

    stage: str
    key: str
    folder: Folder

    @property
    def record(self) -> dict[str, Any] | None:
        """What `stage.json` holds; None while the stage is not finished, or if that file is damaged (see `damage`)."""
        return self._read(RECORD)[0]

    def require_record(self) -> dict[str, Any]:
        """The same of an output that was finished. ValueError where it no longer is."""
        if (record := self.record) is None:
            raise ValueError(self.damage or f"{self.folder.where(RECORD)} is gone: make it again")
        return record

    @property
    def begun(self) -> dict[str, Any]:
        """What `begun.json` holds; nothing where there is none that can be read."""
        return self._read(BEGUN)[0] or {}

    @property
    def damage(self) -> str:
        """What is wrong with `stage.json`, if anything."""
        return self._read(RECORD)[1]

    @property
    def exists(self) -> bool:
        return next(self.folder.walk(), None) is not None

    @property
    def beside(self) -> "Output":
        """Where it is made again while it is still in use."""
        parent, name = self.folder.split()
        return Output(self.stage, self.key, parent.child(name.removesuffix(REDO) + REDO))

    def begin(self, facts: dict[str, Any], attempt: dict[str, Any]) -> dict[str, Any]:
        """The facts of the making that begins here, or of the one that it goes on with, and those of all attempts."""
        begun = self.begun or facts
        begun = {**begun, **attempt, "attempts": [*begun.get("attempts", []), attempt]}
        self.folder.write(BEGUN, _as_text(begun))
        return begun

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record, which makes the output a finished one."""
        self.folder.write(RECORD, _as_text(record))

    def reopen(self) -> None:
        """It counts as begun: what is whole in it is kept when its stage runs again, and what was made of it too."""
        if (record := self.record) and not self.begun:
            self.folder.write(BEGUN, _as_text(record))
        self.folder.delete(RECORD)

    def withdraw(self) -> None:
        """Nothing was begun after all, if nothing but the word of it is there."""
        if [entry.name for entry in self.folder.walk()] == [BEGUN]:
            self.delete()

    def delete(self) -> None:
        """Remove all of it; the record first, so that what is half removed is not taken for finished."""
        self.folder.delete(RECORD)
        self.folder.delete_all()

    def _read(self, name: str) -> tuple[dict[str, Any] | None, str]:
        """What a record holds, or what is wrong with it."""
        try:
            found = json.loads(self.folder.read(name))
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except ValueError as error:
            return None, f"{self.folder.where(name)} is damaged ({error})"
        if problem := self._problem(found, _OF_A_RECORD if name == RECORD else _OF_A_RECORD[:4]):
            return None, f"{self.folder.where(name)} is damaged ({problem})"
        return found, ""

    def _problem(self, found: Any, needed: tuple[str, ...]) -> str:
        if not isinstance(found, dict):
            return "not an object"
        if missing := [name for name in needed if name not in found]:
            return f"it lacks {', '.join(missing)}"
        if (found["stage"], found["key"]) != (self.stage, self.key):
            return f"it is that of {found['stage']} {found['key']}"
        return ""


@dataclass(frozen=True)
class Places:
    """Where the outputs of a root are: the configured store or the root; and what was made in other stores before."""

    root: Path
    main: Folder
    index: Path | None  # where listings of archives are kept; None: nowhere

    def at_home(self, stage: str, key: str) -> Output:
        """Where an output of this key belongs."""
        return Output(stage, key, self.main.child(stage).child(key))

    def output(self, stage: str, key: str) -> Output:
        """The output of this key: where it is finished, else where it belongs."""
        here = self.at_home(stage, key)
        if here.record:
            return _newest(here)
        elsewhere = (Output(stage, key, folder) for folder in self._elsewhere(stage, key))
        return _newest(next((output for output in elsewhere if _is_finished(output)), here))

    def outputs(self, stage: str) -> Iterator[Output]:
        """All outputs of a stage, finished or begun, those beside others too."""
        seen = set()
        for folder, name in self._all_folders(stage):
            if folder.url not in seen:
                seen.add(folder.url)
                yield Output(stage, name.removesuffix(REDO), folder)

    def finished(self, stage: str) -> list[tuple[Output, dict[str, Any]]]:
        """All finished outputs of a stage with their records, the newest first; damaged records are passed over."""
        found = [(output, record) for output in self.outputs(stage) if (record := _record(output))]
        return sorted(found, key=lambda pair: pair[1]["finished"], reverse=True)

    def begun(self, stage: str) -> list[dict[str, Any]]:
        """What is known of all outputs of a stage, finished or not; the last begun first."""
        known = [_record(output) or _begun(output) for output in self.outputs(stage)]
        return sorted(filter(None, known), key=lambda facts: facts.get("started", ""), reverse=True)

    def remember(self, output: Output) -> None:
        """Leaves word in the root of an output that lies elsewhere."""
        if self.main != Folder.at(self.root):
            Folder.at(self.root).child(output.stage).write(output.key + _PLACE, redacted(self.main.url) + "\n")

    def _elsewhere(self, stage: str, key: str) -> Iterator[Folder]:
        root = Folder.at(self.root)
        if self.main != root:
            yield root.child(stage).child(key)
        try:
            place = (self.root / stage / f"{key}{_PLACE}").read_text().strip()
        except OSError:
            return
        yield Folder(without_redactions(place)).child(stage).child(key)

    def _all_folders(self, stage: str) -> Iterator[tuple[Folder, str]]:
        main = self.main.child(stage)
        yield from ((main.child(name), name) for name in main.folders())
        if self.main != Folder.at(self.root):
            local = Folder.at(self.root).child(stage)
            yield from ((local.child(name), name) for name in local.folders())
        for path in sorted((self.root / stage).glob(f"*{_PLACE}")):
            key = path.name.removesuffix(_PLACE)
            yield from ((folder, key) for folder in list(self._elsewhere(stage, key))[-1:] if _is_there(folder))


def places(config: RunConfig, root: Path, may_write: bool = True) -> Places:
    """The places that a configuration and a root name. A look (`may_write=False`) makes no root where there is none."""
    return Places(root, Folder.at(config.store or root), root / INDEX if may_write or root.is_dir() else None)


def take_place(output: Output) -> Output:
    """What was made beside takes the place of what was there before. A crash on the way is mended by the next run."""
    parent, name = output.folder.split()
    old = Output(output.stage, output.key, parent.child(name.removesuffix(REDO)))
    old.delete()
    output.folder.move(old.folder, last=RECORD)
    return old


def is_beside(output: Output) -> bool:
    return output.folder.split()[1].endswith(REDO)


def _newest(output: Output) -> Output:
    """What was made beside it, if that is finished and only its move is not."""
    return output.beside if output.beside.record else output


def _is_finished(output: Output) -> bool:
    return _record(output) is not None


def _is_there(folder: Folder) -> bool:
    try:
        return folder.exists()
    except OSError:
        return False


def _record(output: Output) -> dict[str, Any] | None:
    try:
        return output.record
    except OSError:  # a store that was used before and is out of reach
        return None


def _begun(output: Output) -> dict[str, Any]:
    try:
        return output.begun
    except OSError:
        return {}


def _as_text(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"
