"""A real MLflow server on loopback, to be stopped, killed and started again in the middle of things."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import crash


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


class MlflowServer:
    """Its database and artifacts are in a folder and outlive it."""

    def __init__(self, folder: Path):
        self._folder, self._port = folder, free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        options = ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        options += ["--artifacts-destination", f"{self._folder}/artifacts", "--workers", "1"]
        options += ["--host", "127.0.0.1", "--port", str(self._port)]
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        crash.wait_until(lambda: answers(self.address), "the MLflow server", 120, self._process)

    def signal(self, number: int) -> None:
        """To all of its processes: SIGSTOP makes a server that takes connections and never answers."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()
