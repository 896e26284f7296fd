"""A Ray cluster of three nodes, of which two die: shards, statistics and weights are those of one machine."""

import hashlib
import random
import shutil
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
    assert not list(run.root.glob("ingest/*/manifest.json")), "ingest was done before the node could die"
    cluster.remove_node(busy[0], allow_graceful=False)
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.4")
    run.wait_for_points(rng.randint(1, 10), driver)
    cluster.remove_node(nodes_at(cluster, "ray::RayTrainWorker")[0], allow_graceful=False)
    crash.finish(driver, run.log)
    for pattern in ("ingest/*/*.tfrecord*", "ingest/*/manifest.json", "stats/*/stats.npz"):
        expected = sha256(data / "runs", pattern)
        assert expected
        assert sha256(run.root, pattern) == expected
    assert [p["step"] for p in run.points()] == [p["step"] for p in two_columns.points()]
    found, expected = run.model(), two_columns.model()
    assert {name: found[name].equal(tensor) for name, tensor in expected.items()} == dict.fromkeys(expected, True)
