"""What several tests share: where the real images are, and an S3 server that is a process of its own."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import crash
import pytest
import torch
from devices import DEVICES

from model.step import set_arithmetic

REPOSITORY = crash.REPOSITORY
OURS = ("ALEXNET_TEST_DATA", "ALEXNET_TEST_DEMO", "ALEXNET_SCREENSHOTS")
OF_THE_USER = ("ALEXNET_", "RAY_", "MLFLOW_", "AWS_")  # roots, clusters, servers, credentials: none of the tests'
NO_RAY = "a test that starts Ray is marked slow: `make quick` leaves those out"


def pytest_configure(config) -> None:
    """Before any test is imported, the user's own settings go; the tests' ones are OURS."""
    for name in [name for name in os.environ if name.startswith(OF_THE_USER) and name not in OURS]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory):
    """A working folder that is not the checkout, whose `runs` are the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


@pytest.fixture(autouse=True)
def _no_ray_unless_slow(request, monkeypatch, tmp_path_factory):
    """What is not marked slow cannot import Ray, here or in a process that it starts."""
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setitem(sys.modules, "ray", None)
    stand_in = tmp_path_factory.getbasetemp() / "no_ray"
    stand_in.mkdir(exist_ok=True)
    (stand_in / "ray.py").write_text(f"raise ImportError({NO_RAY!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(stand_in))


@pytest.fixture(scope="session", params=DEVICES)
def device(request) -> str:
    """The same guarantee on the CPU, and on a GPU where there is one."""
    return request.param


@pytest.fixture(autouse=True)
def _same_arithmetic():
    """On a GPU each test begins with the same numbers every time, in float32, whatever the one before it set."""
    if torch.cuda.is_available():
        set_arithmetic(torch.device("cuda"), "float32")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real images (env ALEXNET_TEST_DATA, else ../shared/data); skips where there is none."""
    folder = Path(os.environ.get("ALEXNET_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real images here: set ALEXNET_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """host:port of a moto server on loopback, and dummy credentials in the environment."""
    port_file = tmp_path_factory.mktemp("s3") / "port"
    program = (
        "import sys, time; from moto.server import ThreadedMotoServer; server = ThreadedMotoServer(port=0); "
        "server.start(); open(sys.argv[1], 'w').write(str(server.get_host_and_port()[1])); time.sleep(3600)"
    )
    environment = {"AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = subprocess.Popen([sys.executable, "-c", program, str(port_file)], stderr=subprocess.DEVNULL)
        try:
            yield f"127.0.0.1:{_wait_for_port(server, port_file)}"
        finally:
            server.kill()
            server.wait()


def _wait_for_port(server: subprocess.Popen, port_file: Path) -> int:
    for _ in range(600):
        assert server.poll() is None, "the S3 server ended at its start"
        if port_file.exists() and (text := port_file.read_text()):
            return int(text)
        time.sleep(0.1)
    raise TimeoutError("the S3 server did not start in 60 s")


@pytest.fixture
def s3_folder(s3_server):
    """URL of a folder in a new bucket of the S3 server."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"http://{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/some/prefix?endpoint_override={s3_server}&scheme=http"


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory) -> Path:
    """The root of a finished demo: the whole workflow, run once by its command line for all tests that look at it.

    Each process of tests gets a copy. While one works on those tests, env ALEXNET_TEST_DEMO names a finished demo.
    """
    given = os.environ.get("ALEXNET_TEST_DEMO") or _demo_of_all_processes(tmp_path_factory.getbasetemp())
    return shutil.copytree(given, tmp_path_factory.mktemp("demo") / "runs")


def _demo_of_all_processes(temporary: Path) -> Path:
    """Made by whichever of pytest-xdist's processes comes first; the others wait for it."""
    folder = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    with (folder / "demo_lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_alexnet("run", "--recipe", "demo", "--root", folder / "demo")  # at most once: then all is there
    assert done.returncode == 0, done.stderr
    return folder / "demo"


def run_alexnet(*argv, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "workflows.cli", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=crash.environment(), check=False)
