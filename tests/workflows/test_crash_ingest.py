"""Ingest, killed with SIGKILL at 20 seeded random moments: every time the same command goes on, and nothing is lost.

3 kills are of the driver with Ray under it, 7 of a Ray task's process, 10 of a process that writes the shards one after
the other without Ray (Ray takes seconds to start, and what a kill can break is the writing).
"""

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import crash
import psutil
import pytest
from builders import jpeg, tar_bytes

from pipelines.plan import plan_shards
from pipelines.shards import finished_shards, write_shard
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.verify import verify

pytestmark = pytest.mark.slow
SPEC = {"size": 192, "rows_per_shard": 12, "max_bad": 0.5, "encoding": "raw"}
SHARDS = 41
WRITER = f"""
import sys
from pipelines.plan import plan_shards
from pipelines.shards import finished_shards, write_shard
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
spec = IngestSpec(source=sys.argv[1], **{SPEC})
plan = plan_shards(open_source(spec), spec, Folder.at(sys.argv[2]))
done = finished_shards(plan.folder, plan.origin)
print("ready", flush=True)
for i, name in enumerate(plan.names):
    if name not in done:
        print(write_shard(plan[i]).name, flush=True)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A tar of four class folders with 480 images, one of them damaged."""
    files = {f"{name}/{i}.jpg": jpeg(i, 480, 360) for name in "abcd" for i in range(120)}
    files["a/7.jpg"] = files["a/7.jpg"][:900]
    path = tmp_path_factory.mktemp("source") / "images.tar"
    path.write_bytes(tar_bytes(files))
    return path


@pytest.fixture(scope="module")
def spec(source) -> IngestSpec:
    return IngestSpec(source=str(source), **SPEC)


@pytest.fixture(scope="module")
def undisturbed(spec, tmp_path_factory) -> dict[str, str]:
    """sha256 of every shard and index, written in this process."""
    folder = Folder.at(tmp_path_factory.mktemp("undisturbed"))
    plan = plan_shards(open_source(spec), spec, folder)
    assert len([write_shard(task) for task in plan]) == SHARDS
    return digests(folder.local_path())


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the files that stand under a shard's or an index's final name."""
    files = [path for path in folder.glob("data/*.tfrecord*") if not path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finished(folder: Path, spec: IngestSpec) -> dict[str, tuple[int, int]]:
    """Inode and time of the shards that are done; one that is written again gets others."""
    plan = plan_shards(open_source(spec), spec, Folder.at(folder))
    stats = {name: (folder / name).stat() for name in finished_shards(plan.folder, plan.origin)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


class Survey:
    """Looks at the folder after every kill: what is there is right, and what was done was not done again."""

    def __init__(self, folder: Path, spec: IngestSpec, undisturbed: dict[str, str]):
        self.folder, self.spec, self.undisturbed = folder, spec, undisturbed
        self.known: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        assert digests(self.folder).items() <= self.undisturbed.items()
        now = finished(self.folder, self.spec)
        assert self.known.items() <= now.items()
        self.known = now


def test_a_killed_writer_goes_on_with_the_missing_shards(source, spec, undisturbed, tmp_path):
    rng, survey = random.Random(1), Survey(tmp_path, spec, undisturbed)
    for _ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, source, tmp_path], stdout=subprocess.PIPE, text=True, cwd=crash.REPOSITORY
        )
        for _ in range(rng.randint(1, 5)):  # "ready", then a line for each shard
            assert writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        writer.kill()
        writer.wait()
        survey.look()
    assert 10 < len(survey.known) < SHARDS
    subprocess.run([sys.executable, "-c", WRITER, source, tmp_path], check=True, cwd=crash.REPOSITORY)
    survey.look()
    assert digests(tmp_path) == undisturbed


def test_a_killed_run_goes_on_with_the_missing_shards(source, spec, undisturbed, tmp_path):
    """3 kills of the driver; in the run after them, 7 of a task's process, which that run survives."""
    rng = random.Random(2)
    root, log = tmp_path / "runs", tmp_path / "log"
    settings = [f"--set=ingest.{name}={value}" for name, value in {"source": source, **SPEC}.items()]
    command = ["ingest", "--root", root, "--set=tracking.uri=off", "--set=ray.num_cpus=2", *settings]
    survey = None

    def parts() -> int:
        return len(list(root.glob("ingest/*/parts/*.json")))

    for moment in sorted(rng.sample(range(1, SHARDS // 2), 3)):
        driver = crash.start(*command, log=log)
        crash.wait_until(lambda moment=moment: parts() >= moment, f"shard {moment}", process=driver)
        time.sleep(rng.uniform(0, 0.05))
        assert crash.kill(driver) == [], "Ray's processes outlive the driver"
        (folder,) = (path for path in (root / "ingest").iterdir() if path.is_dir())
        survey = survey or Survey(folder, spec, undisturbed)
        survey.look()
        assert not (folder / "_manifest.json").exists()
    driver = crash.start(*command, log=log)
    killed: list[psutil.Process] = []  # one that was killed may still be seen, and be gone when its turn comes

    def busy() -> list[psutil.Process]:
        return [worker for worker in crash.workers(driver, "ray::_apply") if worker not in killed]

    for _ in range(7):
        workers = crash.wait_until(busy, "a task", process=driver)
        time.sleep(rng.uniform(0, 0.1))
        killed.append(rng.choice(workers))
        killed[-1].kill()
        survey.look()
    crash.finish(driver, log)
    survey.look()
    assert digests(folder) == undisturbed
    assert verify(Folder.at(folder)) == []
    assert Folder.at(folder).stale_temporaries() == []
