"""`alexnet clean` removes what was left half done and what is asked for, and nothing that anything refers to."""

import contextlib
import json
import os
import time
import types

import pytest
from conftest import run_alexnet

from model import checkpoint
from pipelines.storage import Folder
from workflows.commands.leftovers import Wanted, in_stores, leftovers
from workflows.config import RunConfig, UsageError, with_values
from workflows.engine import lock
from workflows.engine.outputs import Output, places
from workflows.engine.plan import plan
from workflows.engine.stage import Stage

STAGES = (
    Stage("ingest", version=1, module="", reads=("ingest.limit",)),
    Stage("train", version=1, module="", needs=("ingest",), reads=("train.epochs",)),
)
NOW, FINISHED = Wanted(older_than_s=0), Wanted(finished=True, older_than_s=0)


def configured(**settings):
    return with_values(RunConfig(), {name.replace("__", "."): value for name, value in settings.items()})


def made(config, root, when, stages=("ingest", "train"), **facts):
    """The outputs of these stages for a configuration, finished at a time of day; their folders by stage."""
    folders = {}
    for step in plan(STAGES, config, places(config, root)):
        name, key = step.stage.name, step.output.key
        folders[name] = step.output.folder
        if name in stages and not step.output.record:
            record = {"stage": name, "key": key, "inputs": step.input_keys, "ingredients": step.ingredients}
            record |= {"finished": when, "seconds": 1, "units": 1, "metrics": {}, "result": "", **facts}
            step.output.folder.write("shard", b"12345")
            step.output.finish(record)
    return types.SimpleNamespace(**folders)


def begun(root, stage, key):
    folder = Folder.at(root / stage / key)
    folder.write("shard", b"123")
    return folder


def found(config, root, wanted=NOW):
    where = places(config, root)
    return {one.where: one for one in leftovers(plan(STAGES, config, where), config, where, wanted)}


def test_runs_of_a_comparison_stay_finished_or_begun_with_what_they_were_made_from(tmp_path):
    member = made(configured(ingest__limit=1), tmp_path, "08:00")
    made(configured(ingest__limit=2), tmp_path, "09:00")
    unfinished = begun(tmp_path, "train", "0" * 16)
    config = configured(ingest__limit=2)
    gone = {member.ingest.where(), member.train.where(), unfinished.where()}
    assert set(found(config, tmp_path, FINISHED)) == gone
    keys = [member.train.split()[1], "0" * 16]
    runs = [{"train_key": key, "evaluate_key": "none"} for key in keys]
    Folder.at(tmp_path / "compare" / "lrn").write("summary.json", json.dumps({"runs": runs}))
    assert found(config, tmp_path, FINISHED) == {}


def test_finished_outputs_go_only_where_they_are_asked_for(tmp_path):
    old = made(configured(ingest__limit=1), tmp_path, "08:00")
    new = made(configured(ingest__limit=2), tmp_path, "09:00")
    now = configured(ingest__limit=2)
    assert found(now, tmp_path) == {}
    some = found(now, tmp_path, FINISHED)
    assert set(some) == {old.ingest.url, old.train.url}
    assert all(one.why == "nothing refers to it" and one.num_bytes > 5 for one in some.values())
    named = found(now, tmp_path, Wanted(named=(f"train/{old.train.split()[1]}",)))
    assert {where: one.why for where, one in named.items()} == {old.train.url: "named"}
    for one in some.values():
        one.remove()
    assert not old.ingest.exists()
    assert new.ingest.size("shard") == 5
    assert found(now, tmp_path, FINISHED) == {}


def test_a_name_that_is_no_output_is_refused(tmp_path):
    with pytest.raises(UsageError, match="train/0123 is no output here"):
        found(RunConfig(), tmp_path, Wanted(named=("train/0123",)))


def test_what_the_newest_was_made_from_is_kept(tmp_path):
    """The newest training reads older shards, and the configuration has changed since."""
    first = made(configured(ingest__limit=1), tmp_path, "08:00", stages=["ingest"])
    made(configured(ingest__limit=2), tmp_path, "09:00", stages=["ingest"])
    trained = made(configured(ingest__limit=1), tmp_path, "10:00")
    some = found(configured(ingest__limit=3), tmp_path, FINISHED)
    assert first.ingest.url not in some
    assert trained.train.url not in some


@pytest.mark.parametrize("named_by", ["the configuration", "an output"])
def test_a_model_that_a_training_starts_from_is_kept_with_what_it_was_made_from(tmp_path, named_by):
    old = made(configured(ingest__limit=1), tmp_path, "08:00")
    start = f"{old.train.url}/model"
    facts = {"ignored": {"train.init_from": start}} if named_by == "an output" else {}
    made(configured(ingest__limit=2), tmp_path, "09:00", **facts)
    now = configured(ingest__limit=2, **({} if facts else {"train__init_from": start}))
    assert found(now, tmp_path, FINISHED) == {}


def test_what_a_stage_at_work_makes_and_reads_is_kept(tmp_path):
    old = made(configured(ingest__limit=1), tmp_path, "08:00", stages=["ingest"])
    made(configured(ingest__limit=2), tmp_path, "09:00")
    half, now = begun(tmp_path, "train", "0123"), configured(ingest__limit=2)
    with lock.held(Output("train", "0123", half), uses={"ingest": old.ingest.split()[1]}):
        assert set(found(now, tmp_path, FINISHED)) <= {made_train(old)}
        with pytest.raises(UsageError, match="train/0123 is in use"):
            found(now, tmp_path, Wanted(named=("train/0123",)))
    assert {old.ingest.url, half.url} <= set(found(now, tmp_path, FINISHED))


def made_train(folders):
    return folders.train.url


def test_what_is_half_done_goes_above_an_age(tmp_path):
    half = begun(tmp_path, "train", "0123")
    assert found(RunConfig(), tmp_path, Wanted()) == {}
    assert found(RunConfig(), tmp_path)[half.url].why == "begun, never finished"
    then = time.time() - 25 * 3600
    os.utime(half.local_path() / "shard", (then, then))
    assert set(found(RunConfig(), tmp_path, Wanted())) == {half.url}


def test_what_the_configuration_has_begun_stays(tmp_path):
    config = RunConfig()
    begun(tmp_path, "ingest", plan(STAGES, config, places(config, tmp_path))[0].output.key)
    assert found(config, tmp_path, FINISHED) == {}


def test_a_damaged_record_keeps_its_output_until_it_is_asked_for(tmp_path):
    old = made(configured(ingest__limit=1), tmp_path, "08:00", stages=["ingest"])
    old.ingest.write("stage.json", "{}")
    assert found(RunConfig(), tmp_path) == {}
    assert found(RunConfig(), tmp_path, FINISHED)[old.ingest.url].why == "its record is damaged"


def test_outputs_in_a_store_that_is_configured_no_more_are_found(tmp_path):
    root, (one, two) = tmp_path / "runs", (str(tmp_path / name) for name in ("one", "two"))
    first = configured(ingest__limit=1, store=one)
    old = made(first, root, "08:00", stages=["ingest"])
    places(first, root).remember(places(first, root).at_home("ingest", old.ingest.split()[1]))
    made(configured(ingest__limit=2, store=two), root, "09:00")
    now = configured(ingest__limit=2, store=two)
    some = found(now, root, Wanted(named=(f"ingest/{old.ingest.split()[1]}",)))
    assert set(some) == {old.ingest.url}
    some[old.ingest.url].remove()
    assert found(now, root, FINISHED) == {}
    assert len(list(tmp_path.glob("two/ingest/*/shard"))) == 1


def test_what_another_root_may_need_stays(tmp_path):
    """Two roots share a store: what one needs no more may be what the other has."""
    store = str(tmp_path / "store")
    theirs, ours = configured(ingest__limit=1, store=store), configured(ingest__limit=2, store=store)
    made(theirs, tmp_path / "theirs", "08:00", stages=["ingest"])
    made(ours, tmp_path / "ours", "09:00")
    at_home = made(configured(ingest__limit=3), tmp_path / "ours", "07:00", stages=["ingest"])
    assert set(found(ours, tmp_path / "ours", FINISHED)) == {at_home.ingest.url}
    where = places(ours, tmp_path / "ours")
    assert in_stores(plan(STAGES, ours, where), where) == 3


def a_shard(folder, hang):
    folder.publish("shard.tfrecord", lambda file: file.write(b"half") and hang())


def a_checkpoint(folder, hang):
    checkpoint.publish(folder.local_path() / "state", lambda path: path.write_bytes(b"half") and hang())


@pytest.mark.parametrize("write", [a_shard, a_checkpoint])
def test_half_written_files_of_every_writer_go_once_it_is_dead(tmp_path, write):
    config = RunConfig()
    folder = made(config, tmp_path, "08:00").ingest
    began, ends = os.pipe(), os.pipe()

    def hang():
        os.write(began[1], b"x")
        os.read(ends[0], 1)
        os._exit(0)

    child = os.fork()
    if child == 0:
        with lock.held(Output("ingest", folder.split()[1], folder)), contextlib.suppress(BaseException):
            write(folder, hang)
    os.read(began[0], 1)
    assert found(config, tmp_path) == {}
    os.write(ends[1], b"x")
    os.waitpid(child, 0)
    some = found(config, tmp_path)
    assert sorted(one.why for one in some.values()) == ["lock of a dead process", "partial file"]
    assert {one.why for one in found(config, tmp_path, Wanted()).values()} == {"lock of a dead process"}
    for one in some.values():
        one.remove()
    assert found(config, tmp_path) == {}
    assert folder.size("shard") == 5


@pytest.mark.parametrize("yes", [False, True])
def test_only_yes_removes(tmp_path, yes):
    half = begun(tmp_path, "train", "0123")
    done = run_alexnet("clean", "--older-than", "0", "--root", tmp_path, *(["--yes"] if yes else []))
    assert f"{half.url}  3 bytes  begun, never finished" in done.stdout
    assert half.exists() == (not yes)
