"""Features, killed with SIGKILL at seeded random moments: the same command goes on, to the same bytes.

3 kills are of a driver that works in its own process; under Ray one is of a task's process and one of the driver.
"""

import hashlib
import random
import shutil
import sqlite3
import time
from pathlib import Path

import crash
import pytest
import tiny

from pipelines.features import CARD, FILES

pytestmark = pytest.mark.slow
SHARDS = 60  # of two images


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `runs` in which a network is trained, and the configuration."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"ingest__rows_per_shard": 2, "train__epochs": 1, "train__placement": "one"}
    config = tiny.write_config(folder / "config.toml", tiny.write_source(folder / "source"), **settings)
    log = folder / "log"
    crash.finish(crash.start_in_process(folder / "runs", config, "ingest", "stats", "train", log=log), log)
    return folder


class Taking:
    """A copy of that root, in which features are taken by always the same command."""

    def __init__(self, trained: Path, folder: Path, on_ray: bool = False):
        self.root, self.config, self.log = folder / "runs", trained / "config.toml", folder / "log"
        self.on_ray = on_ray
        self.known: dict[str, tuple[int, int]] = {}
        shutil.copytree(trained / "runs", self.root)

    def start(self):
        if self.on_ray:
            return crash.start("features", "--root", self.root, "--config", self.config, log=self.log)
        return crash.start_in_process(self.root, self.config, "features", log=self.log)

    def done(self) -> dict[str, tuple[int, int]]:
        """Inode and time of the files that count as finished; one that is written again gets others."""
        records = self.root.glob("features/*/parts/*.json")
        stats = {path.stem: (path.parents[1] / "data" / f"{path.stem}.parquet").stat() for path in records}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}

    def wait_for(self, count: int, driver) -> None:
        wanted = len(self.done()) + count
        crash.wait_until(lambda: len(self.done()) >= wanted, f"file {wanted}", 120, driver)

    def look(self) -> None:
        """What was done is as it was, and nothing counts as finished in all."""
        now = self.done()
        assert self.known.items() <= now.items()
        assert not list(self.root.glob(f"features/*/{CARD}"))
        self.known = now

    def contents(self) -> dict[str, str]:
        """sha256 of all that is kept of the features, but for the records of how they were made."""
        kept = [path for name in ("data/*", CARD, FILES) for path in self.root.glob(f"features/*/{name}")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}

    def statuses(self) -> list[str]:
        """Of the runs in MLflow, in their order."""
        query = (
            "select status from runs join tags using (run_uuid) "
            "where key = 'alexnet.stage' and value = 'features' order by start_time"
        )
        with sqlite3.connect(self.root / "mlflow.db") as database:
            return [status for (status,) in database.execute(query)]


@pytest.fixture(scope="module")
def undisturbed(trained, tmp_path_factory) -> dict[str, str]:
    taking = Taking(trained, tmp_path_factory.mktemp("undisturbed"))
    crash.finish(taking.start(), taking.log)
    contents = taking.contents()
    assert len(contents) == SHARDS + 2
    return contents


def test_a_killed_driver_goes_on_with_the_missing_files(trained, undisturbed, tmp_path):
    rng, taking = random.Random(5), Taking(trained, tmp_path)
    for _ in range(3):
        driver = taking.start()
        taking.wait_for(rng.randint(1, 12), driver)
        time.sleep(rng.uniform(0, 0.05))
        driver.kill()
        driver.wait()
        taking.look()
    crash.finish(taking.start(), taking.log)
    assert taking.known.items() < taking.done().items()
    assert taking.contents() == undisturbed
    assert taking.statuses() == ["KILLED"] * 3 + ["FINISHED"]


def test_a_killed_task_and_a_killed_driver_under_ray_change_nothing(trained, undisturbed, tmp_path):
    taking = Taking(trained, tmp_path, on_ray=True)
    driver = taking.start()
    taking.wait_for(1, driver)
    crash.wait_until(lambda: crash.workers(driver, "ray::_apply"), "a task", 60, driver)[0].kill()
    taking.wait_for(2, driver)
    assert crash.kill(driver) == []
    taking.look()
    crash.finish(taking.start(), taking.log)
    assert taking.contents() == undisturbed
    assert taking.statuses() == ["KILLED", "FINISHED"]
