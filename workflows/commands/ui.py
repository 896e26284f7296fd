"""Serves the MLflow UI on the loopback interface, in processes that end with this one, however it ends."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from workflows.commands import tethered
from workflows.config import TrackingSpec, UsageError
from workflows.console import tell
from workflows.tracking import database
from workflows.tracking.headline import VIEW
from workflows.tracking.server import ENVIRONMENT

HOST = "127.0.0.1"
# Without jobs: eight idle processes. Without the current folder on the path: the root's folders are no modules.
SERVER = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONSAFEPATH": "1"}


def serve(spec: TrackingSpec, root: Path, port: int, ready: Callable[[], None]) -> int:
    """Serve until interrupted; prints the link first.

    Raises:
        UsageError: Nothing to serve, or the port cannot be had.
    """
    if spec.uri == "off":
        raise UsageError("tracking.uri=off: nothing was tracked, so there is nothing to serve")
    if spec.uri.startswith(("http://", "https://")):
        tell(f"the runs are at {spec.uri}")
        return 0
    if not spec.uri and not (root / database.DATABASE).is_file():
        raise UsageError(f"no runs under {root} yet; `alexnet run` makes some, --root names another folder")
    _check_port(port)
    ready()
    with contextlib.nullcontext(root) if spec.uri else database.to_look_at(root) as place:
        tell(f"MLflow UI: http://{HOST}:{port}{_page(spec, place)}  (Ctrl-C ends it)")
        return _wait(spec, root, place, port)


def _page(spec: TrackingSpec, place: Path) -> str:
    """The training runs of this experiment, with their errors; the UI's first page where there are none."""
    number = None if spec.uri else database.experiment_id(place / database.DATABASE, spec.experiment)
    return f"/#/experiments/{number}/runs?viewStateShareKey={VIEW}" if number else ""


def _wait(spec: TrackingSpec, root: Path, place: Path, port: int) -> int:
    """Until the server ends, or we do: the pipe is our end of the rope, and the kernel lets go of it for us."""
    scratch = "" if place == root else str(place)
    argv = [sys.executable, "-P", tethered.__file__, scratch, *_command(root, port)]
    store = spec.uri or f"sqlite:///{database.DATABASE}"  # in the environment: all users see the arguments
    environment = {**os.environ, **SERVER, "MLFLOW_BACKEND_STORE_URI": store}
    rope = subprocess.PIPE
    with subprocess.Popen(argv, env=environment, cwd=place, stdin=rope, start_new_session=True) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 0


def _command(root: Path, port: int) -> list[str]:
    """The MLflow server's command line; it stands in the folder of the database, whose path then needs no escapes."""
    options = {
        "--default-artifact-root": (root / database.ARTIFACTS).as_uri(),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
    }
    return [sys.executable, "-P", "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)]


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} of {HOST} cannot be had ({error}): name another with --port") from error
