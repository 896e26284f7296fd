"""Ray's own folder is short enough for sockets, private, and gone after the run, also after one that was killed."""

import os
import stat
import tempfile
import time
from pathlib import Path

import pytest

from workflows.compute import ray_folder
from workflows.compute.ray_folder import LONGEST_SOCKET, SOCKET, RayFolder
from workflows.config import UsageError


@pytest.fixture
def base(monkeypatch):
    """A short temporary folder, as the user has named it in TMPDIR."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="a-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield folder


def test_a_folder_is_of_one_run_and_one_user_and_is_removed(base):
    first, second = RayFolder(), RayFolder()
    assert first.place != second.place
    assert stat.S_IMODE(first.place.stat().st_mode) == 0o700
    assert first.for_ray.parent == first.place
    first.remove()
    assert os.listdir(base) == [second.place.name]
    second.remove()
    assert os.listdir(base) == []


@pytest.mark.parametrize("length", [10, 60, 200])
def test_a_temporary_folder_of_any_length_will_do(base, monkeypatch, length):
    long = f"{base}/".ljust(length, "x")
    os.makedirs(long, exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", long)
    folder = RayFolder()
    assert len(os.fsencode(folder.place)) - len("/alexnet-ray-01234567") + len(SOCKET) <= LONGEST_SOCKET
    folder.remove()


def test_where_none_is_short_enough_one_is_asked_for(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="name one in TMPDIR"):
        RayFolder()


def test_what_a_killed_run_left_is_removed_by_the_next_one_but_not_what_lives_or_is_kept(base):
    living, kept, left = RayFolder(), RayFolder(keep=True), RayFolder()
    left._lock.close()  # as the kernel does
    kept.remove()
    RayFolder().remove()
    assert sorted(os.listdir(base)) == sorted([living.place.name, kept.place.name])
    assert kept.place.name.startswith(ray_folder.KEPT_PREFIX)
    living.remove()


def test_a_folder_that_processes_of_ray_made_again_goes_too_but_not_one_that_is_being_made(base):
    again, new = (Path(base) / f"{ray_folder.PREFIX}{name}" for name in ("again", "new"))
    for place in (again, new):
        (place / "r" / "session").mkdir(parents=True)
    os.utime(again, (0, time.time() - ray_folder.BEING_MADE_S - 1))
    RayFolder().remove()
    assert os.listdir(base) == [new.name]
