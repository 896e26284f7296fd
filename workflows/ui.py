"""Serves the MLflow UI on the loopback interface, in a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from workflows.config import TrackingSpec, UsageError
from workflows.console import tell
from workflows.tracking import ENVIRONMENT, tracking_uri

HOST = "127.0.0.1"


def command(spec: TrackingSpec, root: Path, port: int) -> list[str]:
    """The MLflow server's command line, for the database under the root."""
    options = [
        "--backend-store-uri",
        tracking_uri(spec, root),
        "--default-artifact-root",
        (root / "mlartifacts").as_uri(),
    ]
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *options,
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def serve(spec: TrackingSpec, root: Path, port: int) -> int:
    """Serve until interrupted; prints the link first.

    Raises:
        UsageError: Nothing to serve, or the port cannot be had.
    """
    if spec.uri == "off":
        raise UsageError("tracking.uri=off: nothing was tracked, so there is nothing to serve")
    if spec.uri.startswith(("http://", "https://")):
        tell(f"the runs are at {spec.uri}")
        return 0
    if not spec.uri and not (root / "mlflow.db").is_file():
        raise UsageError(f"no runs under {root} yet; `alexnet run` makes some, --root names another folder")
    _check_port(port)
    tell(f"MLflow UI: http://{HOST}:{port}  (Ctrl-C ends it)")
    environment = {**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight idle processes
    server = subprocess.Popen(command(spec, root, port), env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} of {HOST} cannot be had ({error}): name another with --port") from error


def _end(server: subprocess.Popen) -> None:
    """The server's processes end with us: its worker would go on listening."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(5)
