"""Stopped by the user: Ctrl-C and SIGTERM end a run cleanly with the command that resumes, a second Ctrl-C at once.

And what two users do to each other: the second one who starts the same stage is told who holds it.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import crash
import pytest
from conftest import REPOSITORY
from tiny import Training, on_ray

pytestmark = pytest.mark.slow


def ctrl_c(driver: subprocess.Popen) -> None:
    """As a terminal does it: to the whole process group, Ray's processes that are in it too."""
    group = os.getpgid(driver.pid)
    for process in (driver, *crash.family(driver)):
        if os.getpgid(process.pid) == group:
            os.kill(process.pid, signal.SIGINT)


def sigterm_twice(driver: subprocess.Popen) -> None:
    """As a scheduler does it that is in a hurry."""
    driver.terminate()
    time.sleep(2)
    driver.terminate()


@pytest.mark.parametrize("stop", [ctrl_c, sigterm_twice], ids=["SIGINT", "SIGTERM twice"])
def test_a_stopped_training_ends_as_killed_with_the_command_that_resumes(data, tmp_path, stop):
    training = Training(data, tmp_path / "stopped", on_ray, train__epochs=500)
    driver = training.start()
    training.wait_for_points(3, driver)
    began = time.monotonic()
    stop(driver)
    assert driver.wait(60) == 1, training.log.read_text()
    assert time.monotonic() - began < 30
    said = training.log.read_text()
    *_, stopped, resume = said.splitlines()
    assert stopped == "alexnet: stopped"
    assert resume.startswith("to go on from what is done: ")
    assert resume.endswith(f"train --root {training.root} --config {training.config}")
    assert "Traceback" not in said
    with sqlite3.connect(training.root / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)] * 2


def test_the_second_process_waits_for_the_holder_it_is_told_of_and_a_second_ctrl_c_ends_at_once(tmp_path):
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
    time.sleep(0.7)  # as fast as a human
    assert first.poll() is None, "it ended at the first: nothing to see"
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == -signal.SIGINT


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


def test_a_second_sigterm_does_not_interrupt_the_closing_of_runs():
    with subprocess.Popen(
        [sys.executable, "-c", CLOSES_SLOWLY], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as it:
        assert it.stdout.readline() == "working\n"
        it.terminate()
        assert it.stdout.readline() == "closing\n"
        it.terminate()
        assert it.stdout.readline() == "closed\n"
