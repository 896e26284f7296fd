"""Stopped: Ctrl-C, SIGTERM and a hangup end a run cleanly with the command that resumes, a second Ctrl-C at once.

And what two users do to each other: the second one who starts the same stage is told who holds it.
"""

import os
import pty
import signal
import sqlite3
import subprocess
import sys

import crash
import pytest
from tiny import Training, on_ray

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hangups_are_heard")]


def group_of(driver: subprocess.Popen) -> list:
    """The driver, and Ray's processes that are in its process group."""
    group = os.getpgid(driver.pid)
    return [process for process in (driver, *crash.family(driver)) if os.getpgid(process.pid) == group]


def ctrl_c(driver: subprocess.Popen) -> None:
    """As a terminal does it: to the whole process group."""
    for process in group_of(driver):
        os.kill(process.pid, signal.SIGINT)


def hangup(driver: subprocess.Popen) -> None:
    """As a terminal that is gone does it, and then the shell."""
    for process in group_of(driver):
        os.kill(process.pid, signal.SIGHUP)
    crash.wait_for_signal(driver, signal.SIGHUP, "SigIgn")
    os.kill(driver.pid, signal.SIGHUP)


def sigterm_twice(driver: subprocess.Popen) -> None:
    """As a scheduler does it that is in a hurry."""
    driver.terminate()
    crash.wait_for_signal(driver, signal.SIGTERM, "SigIgn")
    driver.terminate()


@pytest.mark.parametrize("stop", [ctrl_c, sigterm_twice, hangup])
def test_a_stopped_training_ends_as_killed_with_the_command_that_resumes(data, tmp_path, stop):
    training = Training(data, tmp_path / "stopped", on_ray, train__epochs=500)
    driver = training.start()
    training.wait_for_points(3, driver)
    stop(driver)
    assert driver.wait(120) == 1, training.log.read_text()
    said = training.log.read_text()
    *_, stopped, resume = said.splitlines()
    assert stopped == "alexnet: stopped"
    assert resume.startswith("to go on from what is done: ")
    assert resume.endswith(f"train --root {training.root} --config {training.config}")
    assert "Traceback" not in said
    assert not list(training.root.glob("*/.lock"))
    with sqlite3.connect(training.root / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)] * 2


def test_a_terminal_that_is_gone_stops_the_run_and_the_same_command_goes_on(data, tmp_path):
    """The driver leads the session of a real terminal, whose other end is closed, as by a dropped ssh."""
    training = Training(data, tmp_path / "dropped", on_ray, train__epochs=6)
    ours, terminal = pty.openpty()
    driver = in_terminal(training, terminal)
    os.close(terminal)
    training.wait_for_points(3, driver)
    os.close(ours)
    assert driver.wait(120) == 1
    known = training.points()
    assert not list(training.root.glob("*/.lock"))
    crash.finish(training.start(), training.log)
    assert training.points()[: len(known)] == known
    with sqlite3.connect(training.root / "mlflow.db") as database:
        assert sorted(database.execute("select status from runs").fetchall()) == [("FINISHED",)] * 2 + [("KILLED",)] * 2


def in_terminal(training: Training, terminal: int) -> subprocess.Popen:
    leads = ["setsid", "--ctty", "env", "--default-signal=HUP"]  # these tests may run under nohup
    command = [sys.executable, "-m", "workflows.cli", "train", "--root", training.root, "--config", training.config]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    return subprocess.Popen([*leads, *map(str, command)], **streams, env=crash.environment())


def test_the_second_process_waits_for_the_holder_it_is_told_of(tmp_path):
    waits = tmp_path / "waits"
    root, log = tmp_path / "runs", tmp_path / "log"
    command = ["ingest", "--root", root, "--set=tracking.uri=off"]
    first = crash.start(*command, log=log)
    crash.wait_until(lambda: list(root.glob("ingest/*/parts/*.json")), "a shard", process=first)
    second = crash.start(*command, log=waits)
    holder = f"is being made by host {os.uname().nodename}, pid {first.pid}, since 20"
    crash.wait_until(lambda: holder in waits.read_text(), "its word", process=second)
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 1
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 1


CLOSES_SLOWLY = """
import time
from workflows import cli
cli.stop_on_signals()
try:
    print("working", flush=True)
    time.sleep(60)
finally:
    print("closing", flush=True)
    time.sleep(1)
    print("closed", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_interrupt_the_closing_of_runs(number):
    with closing_slowly("default") as it:
        assert it.stdout.readline() == "working\n"
        it.send_signal(number)
        assert it.stdout.readline() == "closing\n"
        it.send_signal(number)
        assert it.stdout.readline() == "closed\n"


def test_a_second_ctrl_c_ends_the_closing_at_once():
    with closing_slowly("default") as it:
        assert it.stdout.readline() == "working\n"
        it.send_signal(signal.SIGINT)
        assert it.stdout.readline() == "closing\n"
        it.send_signal(signal.SIGINT)
        assert it.stdout.readline() == ""
    assert it.returncode == -signal.SIGINT


def test_a_hangup_that_is_ignored_stays_ignored():
    """As under nohup."""
    with closing_slowly("ignore") as it:
        assert it.stdout.readline() == "working\n"
        it.send_signal(signal.SIGHUP)
        it.send_signal(signal.SIGTERM)
        assert it.stdout.readline() == "closing\n"
        assert "Stopped" in it.communicate()[1]
        assert it.returncode == 1


def closing_slowly(hangup: str) -> subprocess.Popen:
    command = ["env", f"--{hangup}-signal=HUP", sys.executable, "-c", CLOSES_SLOWLY]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, **pipes, text=True, env=crash.environment())
