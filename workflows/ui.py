"""Serves the MLflow UI on the loopback interface, in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from workflows.config import TrackingSpec, UsageError
from workflows.tracking import ENVIRONMENT, tracking_uri


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
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def serve(spec: TrackingSpec, root: Path, port: int) -> int:
    """Serve until interrupted; prints the link first."""
    if spec.uri.startswith(("http://", "https://")):
        print(f"the runs are at {spec.uri}")
        return 0
    if not spec.uri and not (root / "mlflow.db").is_file():
        raise UsageError(f"no runs under {root} yet; `alexnet run` makes some, --root names another folder")
    print(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    environment = {**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight idle processes
    server = subprocess.Popen(command(spec, root, port), env=environment, start_new_session=True)
    try:
        return server.wait()
    finally:
        _end(server)


def _end(server: subprocess.Popen) -> None:
    """The server's processes end with us: its worker would go on listening."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(5)
