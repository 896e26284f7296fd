"""`alexnet clean` removes what nothing uses any more, and nothing else, whoever works at the moment."""

import contextlib
import os
import types

import pytest
from conftest import run_alexnet

from workflows import lock
from workflows.clean import leftovers
from workflows.config import RunConfig, with_values
from workflows.plan import plan
from workflows.stage import Stage, output_of

STAGES = (
    Stage("ingest", version=1, module="", reads=("ingest.limit",)),
    Stage("train", version=1, module="", needs=("ingest",), reads=("train.epochs",)),
)


def configured(**settings):
    return with_values(RunConfig(), {name.replace("__", "."): value for name, value in settings.items()})


def made(config, root, when, stages=("ingest", "train")):
    """The outputs of these stages for a configuration, finished at a time of day; their folders by stage."""
    keys, folders = {}, {}
    for step in plan(STAGES, config, root):
        name, key = step.stage.name, step.output.key
        inputs = {needed: keys[needed] for needed in step.stage.needs}
        keys[name] = key
        folders[name] = step.output.folder
        if name in stages and not step.output.record:
            step.output.store.publish("shard", lambda file: file.write(b"12345"))
            step.output.finish(
                {"stage": name, "key": key, "inputs": inputs, "ingredients": step.ingredients, "finished": when}
            )
    return types.SimpleNamespace(**folders)


def unused(config, root):
    return {leftover.path: leftover for leftover in leftovers(plan(STAGES, config, root), config, root)}


def test_what_nothing_newest_uses_is_listed_with_its_size_and_removed(tmp_path):
    old = made(configured(ingest__limit=1), tmp_path, "08:00")
    new = made(configured(ingest__limit=2), tmp_path, "09:00")
    found = unused(configured(ingest__limit=2), tmp_path)
    assert set(found) == {old.ingest, old.train}
    assert all(leftover.why == "nothing newest uses it" and leftover.num_bytes > 5 for leftover in found.values())
    for leftover in found.values():
        leftover.remove()
    assert not old.ingest.exists()
    assert (new.ingest / "shard").exists()
    assert unused(configured(ingest__limit=2), tmp_path) == {}


def test_what_the_newest_was_made_from_is_kept(tmp_path):
    """The newest training reads older shards, and the configuration has changed since."""
    first = made(configured(ingest__limit=1), tmp_path, "08:00", stages=["ingest"])
    made(configured(ingest__limit=2), tmp_path, "09:00", stages=["ingest"])
    trained = made(configured(ingest__limit=1), tmp_path, "10:00")
    found = unused(configured(ingest__limit=3), tmp_path)
    assert first.ingest not in found
    assert trained.train not in found


def test_what_a_stage_at_work_reads_is_kept(tmp_path):
    old = made(configured(ingest__limit=1), tmp_path, "08:00", stages=["ingest"])
    made(configured(ingest__limit=2), tmp_path, "09:00")
    now = configured(ingest__limit=2)
    with lock.held(tmp_path / "train" / ".lock", uses={"ingest": old.ingest.name}):
        assert old.ingest not in unused(now, tmp_path)
    assert old.ingest in unused(now, tmp_path)


def test_outputs_of_a_stage_at_work_are_kept(tmp_path):
    begun = tmp_path / "ingest" / "0123"
    begun.mkdir(parents=True)
    with lock.held(tmp_path / "ingest" / ".lock"):
        assert unused(RunConfig(), tmp_path) == {}
    assert unused(RunConfig(), tmp_path)[begun].why == "begun, never finished"


def test_shards_in_a_store_that_is_configured_no_more_are_removed_with_their_output(tmp_path):
    root = tmp_path / "runs"
    old = made(configured(ingest__limit=1, store=str(tmp_path / "one")), root, "08:00", stages=["ingest"])
    made(configured(ingest__limit=2, store=str(tmp_path / "two")), root, "09:00")
    found = unused(configured(ingest__limit=2, store=str(tmp_path / "two")), root)
    assert set(found) == {old.ingest}
    found[old.ingest].remove()
    assert not list(tmp_path.glob("one/ingest/*/shard"))
    assert len(list(tmp_path.glob("two/ingest/*/shard"))) == 1


def test_locks_of_the_dead_and_partial_files_go(tmp_path):
    config = RunConfig()
    folder = made(config, tmp_path, "08:00").ingest
    child = os.fork()
    if child == 0:
        with lock.held(tmp_path / "ingest" / ".lock"), contextlib.suppress(BaseException):
            output_of("ingest", folder.name, config, tmp_path).store.publish("cut", lambda file: os._exit(0))
    os.waitpid(child, 0)
    found = unused(config, tmp_path)
    assert sorted(leftover.why for leftover in found.values()) == ["lock of a dead process", "partial file"]
    for leftover in found.values():
        leftover.remove()
    assert unused(config, tmp_path) == {}
    assert (folder / "shard").exists()


@pytest.mark.parametrize("yes", [False, True])
def test_only_yes_removes(tmp_path, yes):
    begun = tmp_path / "train" / "0123"
    begun.mkdir(parents=True)
    done = run_alexnet("clean", "--root", tmp_path, *(["--yes"] if yes else []))
    assert f"{begun}  0 B  begun, never finished" in done.stdout
    assert begun.exists() == (not yes)
