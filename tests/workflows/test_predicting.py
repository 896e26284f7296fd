"""`alexnet predict` looks at what it is given, says what it cannot look at and why, and prints nothing else."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from builders import jpeg, write_files
from conftest import REPOSITORY
from PIL import Image

from model.alexnet import AlexNet
from model.export import save_exported
from model.specs import AlexNetSpec

NAMES = ("cat", "dog", "under_$10_vs_$20", "red\x1b[31m\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec = AlexNetSpec(
        input_px=28, num_classes=4, kernels=(8, 8, 8, 8, 8), fc=(16, 16), conv1_kernel=5, conv1_stride=1, conv1_pad=2,
        initial="scaled",
    )  # fmt: skip
    torch.manual_seed(0)
    weights = {name: weight.contiguous() for name, weight in AlexNet(spec).named_parameters()}
    return save_exported(
        tmp_path_factory.mktemp("model"), spec, weights, torch.full((3, 28, 28), 120.0),
        class_names=NAMES, class_titles=tuple(f"{name}, said" for name in NAMES), provenance={"size_px": 32},
    )  # fmt: skip


def predict(model, cwd, *paths):
    argv = ["predict", "--model", str(model), *paths]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "always"}
    return subprocess.run(
        [sys.executable, "-m", "workflows.cli", *argv],
        capture_output=True, text=True, cwd=cwd, env=environment, check=False,
    )  # fmt: skip


def test_folders_are_walked_in_order_and_what_is_no_image_by_its_name_is_left_out(model, tmp_path):
    names = ("b/2.PNG", "b/10.jpg", "a.jpeg", "b/deep/x.webp", "b/.hidden.jpg", "b/notes.txt", "single.dat")
    write_files(tmp_path, {name: jpeg(i) for i, name in enumerate(names)})
    done = predict(model, tmp_path, "single.dat", ".", "b")
    assert (done.returncode, done.stderr) == (0, "")
    inside = ["b/10.jpg", "b/2.PNG", "b/deep/x.webp"]
    shown = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert shown == ["single.dat", "./a.jpeg", *(f"./{name}" for name in inside), *inside]
    shares = [float(share) for share in re.findall(r"^ +([\d.]+)%", done.stdout, re.MULTILINE)]
    assert len(shares) == 4 * len(shown)
    assert all(abs(sum(shares[i : i + 4]) - 100) < 0.3 for i in range(0, len(shares), 4))


def test_what_cannot_be_looked_at_is_told_in_a_line_each_and_the_rest_is_predicted(model, tmp_path):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    bad = {
        "cut.jpg": (jpeg(1, 400, 300)[:2000], "premature end|Premature end"),
        "empty.jpg": (b"", "the file is empty"),
        "phone.heic": (heic, "a HEIC picture, which is not read here: convert it to JPEG or PNG"),
        "logo.svg": (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "an SVG drawing, which is not read here"),
        "paper.pdf": (b"%PDF-1.7\n", "a PDF, which is not read here"),
        "saved.jpg": (b"\n<!DOCTYPE html><html></html>", "a web page"),
        "note.txt": (b"no picture", "no image of a known format"),
        "red\x1b[31m\n.jpg": (b"no picture", "no image of a known format"),
    }
    write_files(tmp_path, {name: data for name, (data, _) in bad.items()} | {"good.jpg": jpeg(2), "also.jpg": jpeg(3)})
    (tmp_path / "none").mkdir()
    os.mkfifo(tmp_path / "pipe")
    others = {
        "none": "the folder holds no images",
        "pipe": "neither a file nor a folder",
        "gone.jpg": "No such file or directory",
        "https://example.com/cat.jpg": "a URL is not opened: download it first",
        "s3://bucket/cat.jpg": "a URL is not opened: download it first",
    }
    done = predict(model, tmp_path, "good.jpg", *bad, *others, "also.jpg")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == ["good.jpg", "also.jpg"]
    reasons = {**{name: reason for name, (_, reason) in bad.items()}, **others}
    for line, (name, reason) in zip(done.stderr.splitlines(), reasons.items(), strict=True):
        shown = name.replace("\x1b", r"\u001b").replace("\n", r"\n")
        assert re.match(rf"alexnet: {re.escape(shown)}: .*({reason})", line), line


@pytest.mark.slow
def test_as_json_for_programs(model, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_files(tmp_path, {name: jpeg(0), "bad.jpg": b""})
    done = predict(model, tmp_path, "--json", name, "bad.jpg")
    assert done.returncode == 1
    good, bad = json.loads(done.stdout)
    assert os.fsencode(good["image"]) == b"caf\xe9.jpg"
    assert {row["name"] for row in good["classes"]} == set(NAMES)
    assert all(row["title"] == f"{row['name']}, said" and 0 <= row["probability"] <= 1 for row in good["classes"])
    assert bad == {"image": "bad.jpg", "problem": "the file is empty"}
    assert predict(model, tmp_path, name).stdout.splitlines()[0] == r"caf\xe9.jpg"


def test_class_names_do_not_steer_the_terminal(model, tmp_path):
    write_files(tmp_path, {"a.jpg": jpeg(0)})
    done = predict(model, tmp_path, "a.jpg")
    assert r"red\u001b[31m\n, said" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_the_configured_limit_of_pixels_holds_and_libraries_say_nothing(model, tmp_path):
    """Larger than Pillow warns of, and with metadata that are cut off."""
    Image.fromarray(np.zeros((9500, 9500), np.uint8)).save(tmp_path / "large.png", compress_level=1)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01"
    Image.new("CMYK", (40, 30)).save(tmp_path / "odd.jpg", exif=exif)
    Image.new("P", (40, 30)).save(tmp_path / "palette.png", transparency=b"\0\1")
    done = predict(model, tmp_path, "large.png", "odd.jpg", "palette.png", "--set=ingest.max_pixels=100000000")
    assert (done.returncode, done.stderr) == (0, "")
    done = predict(model, tmp_path, "odd.jpg", "large.png", "--set=ingest.max_pixels=90000000")
    assert done.returncode == 1
    assert done.stderr == ("alexnet: large.png: 9500 x 9500 px are more than ingest.max_pixels=90000000; not decoded\n")
