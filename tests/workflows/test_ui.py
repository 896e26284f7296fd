"""`alexnet ui` serves, ends with Ctrl-C, and says in one line what it cannot serve."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import crash
import pytest
from conftest import REPOSITORY, run_alexnet


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
    assert "port 99999" in refused("--root", root, "--port", 99999)
    assert "tracking.uri=off" in refused("--root", root, "--set", "tracking.uri=off")
    assert "no runs under" in refused("--root", tmp_path_factory.mktemp("empty"))


@pytest.mark.slow
def test_ctrl_c_ends_it_well_and_leaves_nothing(root, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "workflows.cli", "ui", "--root", str(root), "--port", str(port)]
    with (tmp_path / "said").open("w") as said:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        crash.wait_until(lambda: answers(port), "an answer", 60, server)
        family = crash.family(server)
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text
    assert "to go on from what is done" not in text
    assert not [process for process in family if process.is_running()]


def answers(port) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
