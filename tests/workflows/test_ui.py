"""`alexnet ui` serves, ends whole however it is ended, and says in one line what it cannot serve."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import crash
import mlflow_server
import pytest
from conftest import REPOSITORY, run_alexnet
from mlflow_server import free_port

from workflows.config import TrackingSpec
from workflows.tracking.tracker import Tracker


@pytest.fixture
def root(tmp_path):
    (tmp_path / "mlflow.db").touch()
    return tmp_path


def refused(*argv) -> str:
    ran = run_alexnet("ui", *argv)
    assert ran.returncode == 2, ran.stderr
    (line,) = ran.stderr.strip().splitlines()
    return line


def test_a_port_that_is_taken_is_named_with_the_way_out(root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused("--root", root, "--port", port)
    assert f"port {port}" in line
    assert "--port" in line


def test_what_cannot_be_served_is_refused(root, tmp_path_factory):
    assert "99999 is no port" in refused("--root", root, "--port", 99999)
    assert "tracking.uri=off" in refused("--root", root, "--set", "tracking.uri=off")
    assert "no runs under" in refused("--root", tmp_path_factory.mktemp("empty"))


@pytest.fixture
def tracked(tmp_path):
    """A root with a run that is said to be elsewhere."""
    tracker = Tracker(TrackingSpec(), tmp_path / "runs")
    tracker.begin_workflow("workflow", {})
    (tmp_path / "runs" / "note.txt").write_text("an artifact")
    tracker.parent.artifact(tmp_path / "runs" / "note.txt")
    run_id = tracker.parent.id
    tracker.end_workflow("FINISHED")
    return (tmp_path / "runs").rename(tmp_path / "moved ü?%25 #"), run_id


def started(root, said, port, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "workflows.cli", "ui", "--root", str(root), "--port", str(port), *more]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with said.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    crash.wait_until(lambda: answers(port), "an answer", 120, server)
    return server


@pytest.mark.slow
@pytest.mark.usefixtures("hangups_are_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_it_ends_nothing_is_left(number, tracked, tmp_path):
    root, _ = tracked
    port = free_port()
    server = started(root, tmp_path / "said", port)
    family = crash.family(server)
    assert family
    server.send_signal(number)
    code = server.wait(60)
    crash.wait_until(lambda: not any(process.is_running() for process in family), "the end of all its processes", 60)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended are no listener
        probe.bind(("127.0.0.1", port))
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text
    assert "to go on from what is done" not in text
    assert code == (0 if number == signal.SIGINT else code)
    assert sorted(path.name for path in tmp_path.iterdir()) == [root.name, "said"]


@pytest.mark.slow
def test_the_link_opens_the_runs_of_a_root_that_was_moved_and_their_artifacts(tracked, tmp_path):
    root, run_id = tracked
    port = free_port()
    server = started(root, tmp_path / "said", port)
    try:
        address = f"http://127.0.0.1:{port}"
        assert f"{address}/#/experiments/1/runs?viewStateShareKey=errors " in (tmp_path / "said").read_text()
        query = f"{address}/get-artifact?path=note.txt&run_uuid={run_id}"
        with urllib.request.urlopen(query, timeout=30) as answer:
            assert answer.read() == b"an artifact"
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
def test_a_uri_which_may_hold_a_password_is_no_argument_of_the_servers(tracked, tmp_path):
    """All users of a machine see the arguments of all processes."""
    root, _ = tracked
    uri = f"sqlite:///{root / 'mlflow.db'}"
    port = free_port()
    server = started(root, tmp_path / "said", port, "--set", f"tracking.uri={uri}")
    try:
        family = crash.family(server)
        assert any("mlflow" in process.cmdline() for process in family)
        assert not [process for process in family if uri in " ".join(process.cmdline())]
    finally:
        server.terminate()
        server.wait(60)


def answers(port) -> bool:
    return mlflow_server.answers(f"http://127.0.0.1:{port}")
