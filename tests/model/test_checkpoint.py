"""Checkpoints: whole or absent, the newest sound one is found, few are kept, and nothing is unpickled."""

import json
import os

import pytest
import torch

from model import checkpoint


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"net/a": torch.full((3, 2), value), "momentum/a": torch.arange(4.0)}


def test_what_was_saved_comes_back(tmp_path):
    checkpoint.save(tmp_path, 7, tensors(1.5), {"step": 7, "rates": [0.1 + 0.2, 1e-5]})
    found = checkpoint.newest_complete(tmp_path)
    assert (found.step, found.scalars) == (7, {"step": 7, "rates": [0.1 + 0.2, 1e-5]})
    assert found.tensors.keys() == tensors(1.5).keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors(1.5).items())


def test_there_may_be_none(tmp_path):
    assert checkpoint.newest_complete(tmp_path / "absent") is None
    (tmp_path / "step-00000003").mkdir()
    assert checkpoint.newest_complete(tmp_path) is None


def test_only_the_newest_are_kept(tmp_path):
    (tmp_path / "step-00000001").mkdir()  # what a killed writer left
    for step in (8, 10, 99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, tensors(step), {}, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-100000000", "step-99999999"]
    assert checkpoint.newest_complete(tmp_path).step == 100_000_000


@pytest.mark.parametrize("keep", [1, 2])
def test_a_broken_newest_does_not_push_out_the_sound_ones(tmp_path, keep):
    checkpoint.save(tmp_path, 5, tensors(5), {}, keep)
    (checkpoint.save(tmp_path, 10, tensors(10), {}, keep=2) / checkpoint.TENSORS).write_bytes(b"cut")
    with pytest.warns(UserWarning, match="passing over"):
        assert checkpoint.newest_complete(tmp_path).step == 5
    checkpoint.save(tmp_path, 7, tensors(7), {}, keep)
    assert checkpoint.newest_complete(tmp_path).step == 7
    assert sorted(os.listdir(tmp_path)) == ["step-00000005", "step-00000007"][-keep:]


@pytest.mark.parametrize("damage", ["no record", "cut record", "null", "cut tensors", "changed byte", "no tensors"])
def test_a_broken_newest_falls_back_to_the_one_before(tmp_path, damage):
    checkpoint.save(tmp_path, 1, tensors(1), {})
    folder = checkpoint.save(tmp_path, 2, tensors(2), {})
    record, data = folder / checkpoint.RECORD, folder / checkpoint.TENSORS
    if damage == "no record":
        record.unlink()
    elif damage == "cut record":
        record.write_text(record.read_text()[:-5])
    elif damage == "null":
        record.write_text("null")
    elif damage == "cut tensors":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "changed byte":
        data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    else:
        data.unlink()
    if damage == "no record":
        found = checkpoint.newest_complete(tmp_path)
    else:
        with pytest.warns(UserWarning, match="passing over the checkpoint .*step-00000002"):
            found = checkpoint.newest_complete(tmp_path)
    assert found.step == 1
    assert torch.equal(found.tensors["net/a"], torch.full((3, 2), 1.0))


def test_a_killed_write_leaves_the_older_checkpoint_and_is_written_over(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, tensors(1), {})

    def killed(path, write):
        raise KeyboardInterrupt

    for publishes_first in (0, 1):
        calls, publish = [], checkpoint.publish

        def dying(path, write, calls=calls, publish=publish, last=publishes_first):
            (publish if len(calls) < last else killed)(path, write)
            calls.append(path)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "publish", dying)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save(tmp_path, 2, tensors(2), {})
        assert checkpoint.newest_complete(tmp_path).step == 1
    checkpoint.save(tmp_path, 2, tensors(3), {})
    assert torch.equal(checkpoint.newest_complete(tmp_path).tensors["net/a"], torch.full((3, 2), 3.0))


def test_a_failed_write_leaves_no_file_behind(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def fails(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.publish(target, fails)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_record_is_plain_json_with_the_digest(tmp_path):
    folder = checkpoint.save(tmp_path, 5, tensors(1), {"epoch": 2})
    record = json.loads((folder / checkpoint.RECORD).read_text())
    assert record["sha256"] == checkpoint.sha256(folder / checkpoint.TENSORS)
    assert record["scalars"] == {"epoch": 2}
