"""Wrong use gets one clear line and exit code 2, and leaves nothing behind."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import class_folders, write_files

ROOT = Path(__file__).parent.parent.parent


def alexnet(*argv, cwd):
    return subprocess.run(
        [sys.executable, "-m", "workflows.cli", *map(str, argv)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        check=False,
    )


def refused(result, *words):
    """Exit code 2 and a single line that has all the words."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def outputs(folder):
    """Stage folders and databases that a command left."""
    return [path for path in Path(folder).glob("runs/*") if path.name != "index"]


def test_a_source_that_does_not_exist(tmp_path):
    refused(alexnet("run", "--set", "ingest.source=/no/such/place", cwd=tmp_path), "/no/such/place")
    assert outputs(tmp_path) == []


def test_an_empty_source(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(alexnet("run", "--set", "ingest.source=empty", cwd=tmp_path), "empty")
    assert outputs(tmp_path) == []


def test_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes" / "a").mkdir(parents=True)
    (tmp_path / "notes" / "a" / "one.txt").write_text("no picture")
    refused(alexnet("run", "--set", "ingest.source=notes", cwd=tmp_path), "notes")
    assert outputs(tmp_path) == []


@pytest.mark.slow
def test_files_that_only_look_like_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "fake" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "fake" / name / f"{i}.jpg").write_text("no picture")
    result = alexnet("run", "--set", "ingest.source=fake", cwd=tmp_path)
    assert result.returncode == 2
    assert "none of the first 10 files" in result.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.glob("runs/ingest/*/*"))


@pytest.mark.slow
def test_a_source_with_too_many_damaged_images_is_not_read_to_its_end(tmp_path):
    files = class_folders(images=200)
    write_files(
        tmp_path / "source", {name: data[: 200 if i % 2 else None] for i, (name, data) in enumerate(files.items())}
    )
    settings = {"ingest.source": "source", "ingest.size": 32, "ingest.rows_per_shard": 8, "ray.num_cpus": 1}
    command = ["ingest", *(f"--set={name}={value}" for name, value in settings.items())]
    result = alexnet(*command, cwd=tmp_path)
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert "of 400 images are damaged, more than ingest.max_bad=0.01 (" in last
    assert "quarantine.parquet; mend the source or raise ingest.max_bad" in last
    assert 0 < len(list(tmp_path.glob("runs/ingest/*/*.tfrecord"))) < 10
    assert alexnet(*command, "--set=ingest.max_bad=0.6", cwd=tmp_path).returncode == 0
    assert len(list(tmp_path.glob("runs/ingest/*/*.tfrecord"))) == 51


def test_an_unknown_recipe(tmp_path):
    refused(alexnet("run", "--recipe", "papr", cwd=tmp_path), "unknown recipe papr", "did you mean paper?")


def test_an_unknown_key(tmp_path):
    refused(alexnet("run", "--set", "ingest.sorce=x", cwd=tmp_path), "did you mean ingest.source?")


def test_a_stage_before_its_inputs(tmp_path):
    refused(alexnet("train", cwd=tmp_path), "needs the output of ingest", "`alexnet ingest`")
    assert outputs(tmp_path) == []


def test_help_comes_at_once(tmp_path):
    began = time.perf_counter()
    result = alexnet("--help", cwd=tmp_path)
    assert "exit codes: 0 done, 1 failed" in " ".join(result.stdout.split())
    assert time.perf_counter() - began < 2  # measured 0.13 s; a heavy import takes longer than this


def test_status_and_plan_are_lists_for_programs(tmp_path):
    for verb in ("status", "plan"):
        rows = json.loads(alexnet(verb, "--json", cwd=tmp_path).stdout)
        assert [row["stage"] for row in rows] == ["ingest", "stats", "train", "evaluate", "report"]
        wanted = {"stage", "state", "key", "path", "mlflow_run_id", "seconds", "reasons"}
        assert all(wanted <= row.keys() and row["state"] == "MISSING" for row in rows)


def test_a_printed_configuration_is_taken_back(tmp_path):
    printed = alexnet("config", "--recipe", "as_run", "--set", "train.epochs=7", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(printed)
    assert alexnet("config", "--config", "mine.toml", cwd=tmp_path).stdout == printed
