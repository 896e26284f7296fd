"""What `ray.address` may be, and what may be there: one line within seconds, and nothing of Ray's own."""

import contextlib
import http.server
import socket
import subprocess
import threading

import pytest
from conftest import run_alexnet

from workflows.compute import cluster
from workflows.config import UsageError


@pytest.fixture
def silent():
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def web_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.parametrize("there", ["silent", "web_server", "127.0.0.1:1", "no.such.host.invalid:6379"])
def test_what_is_no_cluster_is_named(there, request, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)
    address = there if ":" in there else request.getfixturevalue(there)
    with pytest.raises(UsageError, match=f"ray.address={address}: no Ray answers .*: is it up?"):
        cluster.require(address)


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:port", "host:99999", "ray://host:x"])
def test_what_is_no_address_is_named(address):
    with pytest.raises(UsageError, match=f"ray.address={address} is no address: write it as HOST:PORT, or auto"):
        cluster.require(address)


def test_auto_is_the_cluster_that_ray_start_has_made_here(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UsageError, match="this machine is no node of a cluster: start one with `ray start`"):
        cluster.found("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert cluster.found("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert cluster.found("auto") == "10.0.0.2:6379"


@pytest.mark.slow
def test_a_run_on_a_cluster_that_is_gone_ends_with_one_line(tmp_path):
    done = run_alexnet("ingest", "--root", tmp_path / "runs", "--set", "ray.address=127.0.0.1:1")
    assert done.returncode == 2
    *before, refusal = done.stderr.splitlines()
    assert refusal.startswith("alexnet: ray.address=127.0.0.1:1: no Ray answers (")
    assert not [line for line in before if line.startswith(("[20", "Traceback"))]


@pytest.mark.slow
def test_our_own_ray_is_started_whatever_the_environment_names(tmp_path, monkeypatch):
    """Another cluster's address, a folder too long for sockets, no token wanted; and nothing is left there."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    for name, value in {
        "RAY_ADDRESS": "10.255.255.1:6379",
        "TMPDIR": str(long),
        "RAY_TMPDIR": str(long),
        "RAY_AUTH_MODE": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    done = run_alexnet("ingest", "--root", tmp_path / "runs", "--set", "ingest.limit=8", "--set", "tracking.uri=off")
    assert done.returncode == 0, done.stderr
    assert list(long.iterdir()) == []
    with contextlib.suppress(subprocess.CalledProcessError):
        left = subprocess.run(["pgrep", "-f", str(long)], capture_output=True, text=True, check=True).stdout
        pytest.fail(f"processes that still run: {left}")
