"""A lock file belongs to who wrote it, and says what its stage reads."""

import json
import os

import pytest

from workflows import lock
from workflows.config import UsageError


def test_a_lock_says_what_its_stage_reads_while_it_is_held(tmp_path):
    with lock.held(tmp_path / "train" / ".lock", uses={"ingest": "0123"}):
        assert lock.in_use(tmp_path) == {("ingest", "0123")}
    assert lock.in_use(tmp_path) == set()


def test_what_a_dead_process_read_is_not_in_use(tmp_path):
    child = os.fork()
    if child == 0:
        with lock.held(tmp_path / "train" / ".lock", uses={"ingest": "0123"}):
            os._exit(0)
    os.waitpid(child, 0)
    assert lock.holder(tmp_path / "train" / ".lock")["uses"] == {"ingest": "0123"}
    assert lock.in_use(tmp_path) == set()


def test_a_lock_that_another_host_took_by_force_is_left_to_it(tmp_path):
    path = tmp_path / "train" / ".lock"
    theirs = json.dumps({"host": "elsewhere", "pid": 7, "since": "2026-01-01"})
    with lock.held(path):
        path.write_text(theirs)
    assert path.read_text() == theirs


def test_a_lock_that_somebody_removed_is_no_error_at_the_end(tmp_path):
    path = tmp_path / "train" / ".lock"
    with lock.held(path):
        path.unlink()
    assert not path.exists()


def test_a_process_that_comes_second_is_refused(tmp_path):
    path = tmp_path / "train" / ".lock"
    with lock.held(path), pytest.raises(UsageError, match=f"pid {os.getpid()}"), lock.held(path):
        pass
    assert not path.exists()
