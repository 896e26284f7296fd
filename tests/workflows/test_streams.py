"""Output that nobody reads, or that has no room, ends no work; a command that only prints says what was lost."""

import sqlite3
import subprocess
import sys

import crash
import pytest
from conftest import run_alexnet

INGEST = ("ingest", "--set=ingest.limit=24", "--set=ingest.max_bad=0.5")
OFF = "--set=tracking.uri=off"


def shell(line: str, *argv) -> subprocess.CompletedProcess:
    """The command as "$@" in a line of bash."""
    command = ["bash", "-c", line, "bash", sys.executable, "-m", "workflows.cli", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=crash.environment(), check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}',
        '"$@" | true; exit ${PIPESTATUS[0]}',
        '"$@" >&- 2>&-',
        '"$@" >&- 2>&- <&-',
        '"$@" > /dev/full 2>&1',
    ],
)
def test_a_stage_is_done_whoever_listens(tmp_path, line):
    root = tmp_path / "runs"
    done = shell(line, *INGEST, OFF, "--root", root)
    assert done.returncode == 0, done.stderr
    again = run_alexnet(*INGEST, OFF, "--root", root)
    assert "cached" in again.stdout
    assert "nothing to do" in again.stdout


@pytest.mark.slow
def test_a_run_is_tracked_to_its_end_when_its_reader_has_gone(tmp_path):
    done = shell('"$@" 2>&1 | head -2; exit ${PIPESTATUS[0]}', *INGEST, "--root", tmp_path / "runs")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)] * 2


@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_a_command_that_only_prints_may_end_quietly(reader):
    done = shell(f'"$@" | {reader}; exit ${{PIPESTATUS[0]}}', "config")
    assert (done.returncode, done.stderr) == (0, "configuration: demo, the recipe\n")


def test_a_command_that_only_prints_fails_where_what_it_printed_has_no_room():
    done = shell('"$@" > /dev/full', "config")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "alexnet: cannot write to standard output: No space left on device"


def test_what_the_terminal_s_encoding_lacks_is_escaped(tmp_path):
    done = shell('LC_ALL=C PYTHONIOENCODING=ascii "$@"', "status", "--root", tmp_path / "Bäume")
    assert done.returncode == 0, done.stderr
