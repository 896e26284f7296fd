"""`alexnet search`: image files among the stored ones, what cannot be looked at in a line each, and a picture."""

import json
from pathlib import Path

import pytest
import tiny
from conftest import run_alexnet
from PIL import Image

from workflows.report.finished_run import open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Path:
    """A folder with `source` and `runs`, in which features were taken."""
    folder = tmp_path_factory.mktemp("taken")
    tiny.features_taken(folder)
    return folder


def test_a_stored_image_finds_itself_and_the_unreadable_is_told_in_a_line(taken, tmp_path):
    finished = open_run(taken / "runs")
    keys = next(finished.features("train")).keys[:2]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    paths = [taken / "source" / keys[0], bad, taken / "source" / keys[1]]
    done = run_alexnet("search", *paths, "--root", taken / "runs", "--top", 3, "--json")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("alexnet: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"alexnet: {bad}: no image of a known format")
    found = json.loads(done.stdout)
    assert [answer["image"] for answer in found] == [str(path) for path in paths]
    for answer, key in ((found[0], keys[0]), (found[2], keys[1])):
        near = answer["neighbours"]
        assert near[0]["key"] == key
        assert near[0]["distance"] < 0.05 * near[1]["distance"]
        assert [one["distance"] for one in near] == sorted(one["distance"] for one in near)
        assert len(near) == 3
    with Image.open(taken / "runs" / "search.png") as picture:
        assert picture.width > picture.height > 100


def test_the_words_name_class_and_key_and_a_split_without_features_is_refused(taken):
    image = next((taken / "source").rglob("*.jpg"))
    said = run_alexnet("search", image, "--root", taken / "runs", "--split", "val", "--top", 2)
    assert said.returncode == 0, said.stderr
    head, *near = said.stdout.splitlines()
    assert head == str(image)
    val = {key for rows in open_run(taken / "runs").features("val") for key in rows.keys}
    assert {line.split()[-1] for line in near} <= val
    assert len(near) == 2
    refused = run_alexnet("search", image, "--root", taken / "runs", "--split", "test")
    assert refused.returncode == 2
    assert "--split test: " in refused.stderr
    assert "holds no features of split 'test', but of train, val" in refused.stderr


def test_without_features_the_command_that_takes_them_is_named(tmp_path):
    refused = run_alexnet("search", "image.jpg", "--root", tmp_path)
    assert refused.returncode == 2
    assert f"no features are taken under {tmp_path}: run `" in refused.stderr
    assert " features --root" in refused.stderr


def test_codes_find_what_their_bits_say(taken, tmp_path):
    command = [
        "--root",
        taken / "runs",
        "--set",
        "codes.bits=[64]",
        "--set",
        "codes.epochs=2",
        "--set",
        "tracking.uri=off",
    ]
    image = taken / "source" / next(open_run(taken / "runs").features("train")).keys[0]
    refused = run_alexnet("search", image, "--root", taken / "runs", "--codes", 64)
    assert refused.returncode == 2
    assert "--codes: no codes are made of these features: run `" in refused.stderr
    assert run_alexnet("codes", *command).returncode == 0
    done = run_alexnet("search", image, "--root", taken / "runs", "--codes", 64, "--json")
    assert done.returncode == 0, done.stderr
    near = json.loads(done.stdout)[0]["neighbours"]
    assert image.name in near[0]["key"]
    assert all(one["distance"] == int(one["distance"]) <= 64 for one in near)
    refused = run_alexnet("search", image, "--root", taken / "runs", "--codes", 28)
    assert "--codes 28: " in refused.stderr
    assert "holds no codes of so many bits" in refused.stderr
