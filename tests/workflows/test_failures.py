"""What is ours and fails leaves its trace in a file that is named; what the user can mend is one line."""

import errno
import re
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from conftest import run_alexnet

from workflows import cli, failures
from workflows.commands import verbs
from workflows.config import UsageError


@pytest.fixture
def act(monkeypatch, capsys, tmp_path):
    """`alexnet status` that raises the error: its exit code and what it says on standard error."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(cli, "stop_on_signals", lambda: None)

    def act(error: BaseException, *argv: str) -> tuple[int, list[str]]:
        def fail(args):
            raise error

        monkeypatch.setattr(verbs, "status", fail)
        code = cli.main(["status", *argv])
        return code, capsys.readouterr().err.splitlines()

    return act


def test_a_mistake_of_ours_leaves_a_private_file_in_the_root(act, tmp_path):
    (tmp_path / "runs").mkdir()
    code, (where, what) = act(KeyError("stage"), "--root", str(tmp_path / "runs"))
    assert (code, what) == (1, "alexnet: KeyError: 'stage'")
    file = Path(re.fullmatch("the whole trace is in (.*)", where)[1])
    assert file.parent == tmp_path / "runs" / failures.LOGS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("Traceback")
    assert "KeyError: 'stage'" in file.read_text()


def test_without_a_root_it_is_a_temporary_file_and_nothing_is_made(act, tmp_path):
    _, (where, _) = act(RuntimeError("a"), "--root", str(tmp_path / "runs"))
    assert where.startswith(f"the whole trace is in {tmp_path}/temporary/alexnet-")
    assert not (tmp_path / "runs").exists()


def test_where_nothing_can_be_written_the_trace_is_shown(act, tmp_path):
    (tmp_path / "temporary").rmdir()
    (tmp_path / "temporary").touch()
    _, lines = act(RuntimeError("a"), "--root", str(tmp_path / "runs"))
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "alexnet: RuntimeError: a"


@pytest.mark.parametrize(
    "error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), ConnectionResetError(errno.ECONNRESET, "reset by a server")]
)
def test_a_pipe_that_breaks_elsewhere_is_a_failure(act, error):
    code, lines = act(error)
    assert code == 1
    assert lines[-1] == f"alexnet: {error}"


def test_what_the_user_can_mend_is_one_line_and_a_trace_only_if_asked_for(act, tmp_path):
    assert act(UsageError("no such key: trian")) == (2, ["alexnet: no such key: trian"])
    code, lines = act(UsageError("no such key: trian"), "--debug")
    assert code == 2
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "alexnet: no such key: trian"
    code, lines = act(RuntimeError("a"), "--debug", "--root", str(tmp_path))
    assert (code, lines[0][:9], lines[-1]) == (1, "Traceback", "alexnet: RuntimeError: a")
    assert not (tmp_path / failures.LOGS).exists()


def test_secrets_of_urls_are_in_neither_line_nor_file(act, tmp_path):
    _, (where, what) = act(OSError("no answer from s3://me:secret@bucket/a?secret_key=hidden"), "--root", str(tmp_path))
    text = Path(where.removeprefix("the whole trace is in ")).read_text()
    assert "secret@" not in what + text
    assert "hidden" not in what + text


def test_only_the_newest_files_are_kept_and_no_others_touched(tmp_path):
    (tmp_path / failures.LOGS).mkdir()
    (tmp_path / failures.LOGS / "notes.log").write_text("the user's own")
    for number in range(failures.KEPT + 5):
        failures.keep_trace(ValueError(str(number)), tmp_path)
    files = sorted((tmp_path / failures.LOGS).glob("2*.log"))
    assert len(files) == failures.KEPT
    assert (tmp_path / failures.LOGS / "notes.log").exists()


@pytest.mark.slow
def test_with_debug_ray_s_logs_are_kept_and_named(tmp_path):
    settings = ("--set=ingest.limit=24", "--set=ingest.max_bad=0.5", "--set=tracking.uri=off", "--debug")
    done = run_alexnet("ingest", "--root", tmp_path / "runs", *settings)
    assert done.returncode == 0, done.stderr
    (logs,) = re.findall(r"Ray's logs are in (.*)", done.stderr)
    try:
        assert [path for path in Path(logs).glob("worker-*") if path.stat().st_size]
    finally:
        shutil.rmtree(Path(logs).parents[2])
