"""A Ray cluster of three nodes, of which two die: shards, statistics and weights are those of one machine."""

import hashlib
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import crash
import psutil
import pytest
import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    """Three nodes of one CPU each; the first is the head, and the only one at the address where the driver is."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for number in (2, 3):
        nodes.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}")
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


def nodes_at(cluster, title: str) -> list:
    """The nodes, but for the head, that have a worker at this kind of work."""
    others = [node for node in cluster.list_all_nodes() if node is not cluster.head_node]
    return [node for node in others if crash.workers(raylet(node), title)]


def raylet(node) -> psutil.Process:
    (info,) = node.all_processes["raylet"]
    return psutil.Process(info.process.pid)


JOINED = """
import contextlib, os, sys, time
from workflows.compute.on_ray import OnRay
from workflows.compute import on_ray
from workflows.config import RaySpec

def busy(number):
    began = time.time()
    time.sleep(1)
    return began, time.time(), os.environ.get("AWS_SECRET_ACCESS_KEY")

if __name__ == "__main__":
    import ray.cloudpickle
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    on_ray.RESOURCES_EVERY_S = 1
    on_ray = OnRay(RaySpec(address=sys.argv[1]))
    spans = []
    with contextlib.closing(on_ray.map(busy, range(300))) as results:
        for began, ended, key in results:
            spans.append((began, ended))
            at_once = max(sum(first <= moment < last for first, last in spans) for moment, _ in spans)
            print(at_once, key, flush=True)
            if at_once == 3:
                break
"""


GROWING = """
import sys
from ray.cluster_utils import Cluster

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(nodes.address, flush=True)
for number, _ in enumerate(sys.stdin, 2):
    nodes.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}")
nodes.shutdown()
"""


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_a_joined_cluster_is_used_as_it_grows_and_its_tasks_have_the_driver_s_credentials(mode):
    """With and without a token, which the driver is told neither."""
    environment = crash.environment() | {"RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    modes = {"RAY_AUTH_MODE": mode}, {"AWS_SECRET_ACCESS_KEY": "of the driver"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", GROWING], **pipes, env=environment | modes[0]) as nodes:
        command = [sys.executable, "-c", JOINED, nodes.stdout.readline().strip()]
        with subprocess.Popen(command, **pipes, env=environment | modes[1]) as driver:
            lines = [driver.stdout.readline()]
            nodes.stdin.write("one more\n" * 2)
            nodes.stdin.flush()
            lines += driver.stdout
    assert driver.returncode == 0
    at_once, keys = zip(*(line.rstrip("\n").split(" ", 1) for line in lines), strict=True)
    assert set(keys) == {"of the driver"}
    assert (at_once[0], at_once[-1]) == ("1", "3")


ON_A_GPU = """
import os, sys
from workflows.compute.on_ray import OnRay
from workflows.config import RaySpec

def process(number):
    return os.getpid()

if __name__ == "__main__":
    import ray.cloudpickle
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    on_ray = OnRay(RaySpec(address=sys.argv[1]))
    for kept in (False, True):
        print(len(set(on_ray.map(process, range(4), num_gpus=1, keep_processes=kept))))
"""


def test_processes_with_a_gpu_end_after_a_task_unless_they_are_kept():
    """On a node that says it has a GPU."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=options)
    command = [sys.executable, "-c", ON_A_GPU, nodes.address]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, env=crash.environment(), check=False)
    finally:
        nodes.shutdown()
    assert ran.stdout.split() == ["4", "1"], ran.stderr


def sha256(root: Path, pattern: str) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob(pattern)}


def test_nodes_that_die_in_ingest_and_in_training_change_nothing(cluster, data, two_columns, tmp_path):
    rng = random.Random(5)
    run = tiny.Training(data, tmp_path / "cluster", None, ray__address=cluster.address, **tiny.TWO_COLUMNS)
    for stage in ("ingest", "stats"):
        shutil.rmtree(run.root / stage)
    command = ["run", "--until", "train", "--root", run.root, "--config", run.config]
    driver = crash.start(*command, log=run.log)
    busy = crash.wait_until(lambda: nodes_at(cluster, "ray::_apply"), "a task on another node", 60, driver)
    time.sleep(rng.uniform(0, 0.1))
    assert not list(run.root.glob("ingest/*/_manifest.json")), "ingest was done before the node could die"
    cluster.remove_node(busy[0], allow_graceful=False)
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.4")
    run.wait_for_points(rng.randint(1, 10), driver)
    cluster.remove_node(nodes_at(cluster, "ray::RayTrainWorker")[0], allow_graceful=False)
    crash.finish(driver, run.log)
    for pattern in ("ingest/*/data/*.tfrecord*", "ingest/*/_manifest.json", "stats/*/stats.npz"):
        expected = sha256(data / "runs", pattern)
        assert expected
        assert sha256(run.root, pattern) == expected
    assert [p["step"] for p in run.points()] == [p["step"] for p in two_columns.points()]
    found, expected = run.model(), two_columns.model()
    assert {name: found[name].equal(tensor) for name, tensor in expected.items()} == dict.fromkeys(expected, True)
