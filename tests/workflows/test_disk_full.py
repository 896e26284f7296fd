"""A disk that is too small is refused before the start; one that fills up stops the stage, and nothing is lost."""

import hashlib
import subprocess
from pathlib import Path

import crash
import pyarrow.parquet as pq
import pytest
from builders import jpeg, tar_bytes
from conftest import run_alexnet

from pipelines.storage import Folder

pytestmark = pytest.mark.slow
DISK_MB = 24
IMAGES, SHARD_BYTES = 200, 10 * 192 * 192 * 3  # 22 MB of raw pixels


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk here: mounting one is not allowed")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def command(tmp_path, disk) -> list:
    source = tmp_path / "images.tar"
    source.write_bytes(tar_bytes({f"{name}/{i}.jpg": jpeg(i, 400, 300) for name in "ab" for i in range(IMAGES // 2)}))
    settings = {"ingest.source": source, "ingest.size": 192, "ingest.encoding": "raw", "ingest.rows_per_shard": 10}
    settings |= {"store": disk / "store", "tracking.uri": "off", "ray.num_cpus": 2}
    return ["ingest", "--root", tmp_path / "runs", *(f"--set={name}={value}" for name, value in settings.items())]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_started(command, disk, tmp_path):
    refused = run_alexnet(*command, "--set=ingest.size=256")
    assert refused.returncode == 2
    line = refused.stderr.splitlines()[-1]
    assert line.startswith(f"alexnet: the shards will take about 39.6 MB and {disk}/store")
    assert line.endswith("free: make room, or name another disk with --root or --set store=FOLDER")
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert "starting Ray" not in refused.stderr


def test_a_disk_that_fills_up_stops_the_stage_and_the_same_command_goes_on(command, disk, tmp_path):
    log = tmp_path / "log"
    driver = crash.start(*command, log=log)
    crash.wait_until(lambda: list(disk.rglob("parts/*.json")), "a shard", process=driver)
    fill(disk / "others")
    assert driver.wait(120) == 1, log.read_text()
    *_, what, resume = log.read_text().splitlines()
    assert what.startswith(f"alexnet: no space left for the shards in {disk}/store")
    assert "Traceback" not in log.read_text()
    assert resume.startswith("to go on from what is done: ")
    before = {path.name: path.stat().st_mtime_ns for path in disk.rglob("*.tfrecord")}
    assert 0 < len(before) < IMAGES // 10
    assert all(path.stat().st_size > SHARD_BYTES for path in disk.rglob("*.tfrecord"))
    assert Folder.at(disk).stale_temporaries() == []
    (disk / "others").unlink()
    crash.finish(crash.start(*command, log=log), log)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in disk.rglob("*.tfrecord")}.items()
    assert_whole(next(disk.rglob("_manifest.json")).parent)


def fill(path: Path) -> None:
    """Somebody else writes until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass


def assert_whole(output: Path) -> None:
    shards = pq.read_table(output / "_shards.parquet").to_pylist()
    assert sum(shard["rows"] for shard in shards) == IMAGES
    for shard in shards:
        assert hashlib.sha256((output / shard["name"]).read_bytes()).hexdigest() == shard["sha256"]
