"""A lease belongs to who wrote it, says what its stage reads, and ends with its holder, wherever that lives."""

import json
import os
import time

import pytest

from pipelines.storage import Folder
from workflows.config import RunConfig, UsageError, with_values
from workflows.engine import lock
from workflows.engine.outputs import Output, places
from workflows.processes import LEASE_ENDS_AFTER_S, this_process

ELSEWHERE = {
    "host": "elsewhere",
    "boot": "b",
    "namespace": "n",
    "pid": 7,
    "started": 1.0,
    "since": "2026-01-01T00:00:00",
}


@pytest.fixture
def output(tmp_path):
    return Output("train", "0123", Folder.at(tmp_path / "train" / "0123"))


@pytest.fixture(params=["disk", pytest.param("object store", marks=pytest.mark.slow)])
def anywhere(request, tmp_path):
    """An output on a disk, and one in an object store."""
    url = request.getfixturevalue("s3_folder") if request.param == "object store" else tmp_path
    return Output("train", "0123", Folder.at(url).child("train").child("0123"))


def in_use(tmp_path):
    return lock.in_use(places(RunConfig(), tmp_path))


def write(output, who):
    lock.of(output).folder.write("0123.lock", json.dumps(who))


def grow_old(output):
    path, then = output.folder.local_path().with_name("0123.lock"), time.time() - LEASE_ENDS_AFTER_S - 1
    os.utime(path, (then, then))


def test_a_lease_says_what_its_stage_reads_while_it_is_held(tmp_path, output):
    with lock.held(output, uses={"ingest": "4567"}):
        assert in_use(tmp_path) == {("train", "0123"), ("ingest", "4567")}
    assert in_use(tmp_path) == set()


def test_a_lease_in_a_store_is_seen_from_every_root(s3_folder, tmp_path):
    config = with_values(RunConfig(), {"store": s3_folder})
    output = places(config, tmp_path).at_home("train", "0123")
    with lock.held(output, uses={"ingest": "4567"}):
        assert lock.in_use(places(config, tmp_path / "another")) == {("train", "0123"), ("ingest", "4567")}
        assert lock.in_use(places(config, tmp_path), by_others=True) == set()
    assert lock.of(output).holder() is None


def test_what_a_dead_process_read_is_not_in_use(tmp_path, output):
    child = os.fork()
    if child == 0:
        with lock.held(output, uses={"ingest": "4567"}):
            os._exit(0)
    os.waitpid(child, 0)
    assert lock.of(output).holder()["uses"] == {"ingest": "4567"}
    assert lock.of(output).is_dead()
    assert in_use(tmp_path) == set()
    with lock.held(output):
        assert lock.of(output).holder()["pid"] == os.getpid()


def test_two_outputs_of_a_stage_are_held_side_by_side(tmp_path, output):
    with lock.held(output), lock.held(Output("train", "89ab", Folder.at(tmp_path / "train" / "89ab"))):
        assert in_use(tmp_path) == {("train", "0123"), ("train", "89ab")}


def test_a_lease_that_another_host_took_is_left_to_it_and_its_old_holder_stops(anywhere):
    def work_on():
        with lock.held(anywhere, beat_every_s=0.01):
            for _ in range(1200):  # a beat on its way may undo it once; then one who takes it tries again
                write(anywhere, ELSEWHERE)
                time.sleep(0.05)

    with pytest.raises(UsageError, match="another process took .*host elsewhere, pid 7"):
        work_on()
    assert lock.of(anywhere).holder()["pid"] == 7


def test_a_lease_that_somebody_removed_is_no_error_at_the_end(output):
    path = output.folder.local_path().with_name("0123.lock")
    with lock.held(output):
        path.unlink()
    assert not path.exists()


class Waited(Exception):
    pass


def waited(text):
    raise Waited(text)


def test_a_living_holder_elsewhere_is_waited_for_unless_its_lock_is_taken(anywhere):
    write(anywhere, ELSEWHERE)
    with (
        pytest.raises(Waited, match="host elsewhere, pid 7, since 2026-01-01.*--take-lock"),
        lock.held(anywhere, say=waited),
    ):
        pass
    with lock.held(anywhere, take=True):
        assert lock.of(anywhere).holder()["pid"] == os.getpid()
    assert lock.of(anywhere).holder() is None


def test_a_holder_elsewhere_whose_heart_stopped_is_succeeded(output):
    write(output, ELSEWHERE)
    grow_old(output)
    with lock.held(output, say=waited):
        assert lock.of(output).holder()["pid"] == os.getpid()


def test_a_holder_of_the_same_name_in_another_container_is_not_taken_for_dead(output):
    """Its process number means nothing here."""
    write(output, {**this_process(), "namespace": "another", "pid": 2**22})
    assert not lock.of(output).is_dead()
    with pytest.raises(Waited), lock.held(output, say=waited):
        pass


def test_a_lock_is_touched_while_it_is_held(anywhere):
    with lock.held(anywhere, beat_every_s=0.01):
        first = lock.of(anywhere).holder()["heartbeat"]
        ends = time.monotonic() + 30
        while lock.of(anywhere).holder()["heartbeat"] == first and time.monotonic() < ends:
            time.sleep(0.01)
        assert lock.of(anywhere).holder()["heartbeat"] > first


def test_the_lock_of_a_living_process_here_cannot_be_taken(output):
    mine = f"--take-lock: .*pid {os.getpid()}"
    with lock.held(output), pytest.raises(UsageError, match=mine), lock.held(output, take=True):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_lock_file_that_says_nothing_is_nobody_s(output, text):
    path = output.folder.local_path().with_name("0123.lock")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with lock.held(output):
        assert lock.of(output).holder()["pid"] == os.getpid()
