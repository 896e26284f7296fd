"""The smallest workflow that is still whole: 120 drawn images of four classes, a network of 28 px, seconds to train."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import crash
import torch
from builders import class_folders, write_files
from safetensors.torch import load_file

from workflows import recipes
from workflows.compute.workers import InProcess
from workflows.config import RunConfig, dump, with_values
from workflows.engine.run import run
from workflows.workflow import STAGES

SETTINGS = {
    "ingest.size": 32,
    "ingest.rows_per_shard": 16,
    "ingest.encoding": "raw",
    "loader.window_shards": 4,
    "net.input_px": 28,
    "net.kernels": "16,16,16,16,16",
    "net.fc": "32,32",
    "net.conv1_kernel": 5,
    "net.conv1_stride": 1,
    "net.conv1_pad": 2,
    "train.epochs": 4,
    "train.batch_size": 8,
    "train.checkpoint_every_steps": 5,
    "ray.num_cpus": 2,
}


TWO_COLUMNS = {"train__placement": "columns", "train__epochs": 2}  # two workers under Ray


def write_source(folder: Path) -> Path:
    return write_files(folder, class_folders(classes="abcd", images=30))


def config(source: Path | str, **settings) -> RunConfig:
    """The tiny configuration; `train__epochs=3` sets train.epochs."""
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return with_values(recipes.demo(), {**SETTINGS, "ingest.source": str(source), **given})


def features_taken(folder: Path) -> tuple[Path, RunConfig]:
    """A root in which features were taken of `folder/source`, and its configuration."""
    made = config(write_source(folder / "source"), train__placement="one", train__epochs=1, tracking__uri="off")
    until_features = ("ingest", "stats", "train", "features")
    run(STAGES, made, folder / "runs", only=until_features, compute=lambda *_: InProcess())
    return folder / "runs", made


class Interrupted(InProcess):
    """Ends as by Ctrl-C after so many results."""

    def __init__(self, results: int):
        self.results = results

    def map(self, *args, **options):
        for found in super().map(*args, **options):
            yield found
            self.results -= 1
            if not self.results:
                raise KeyboardInterrupt


def write_config(path: Path, source: Path | str, **settings) -> Path:
    path.write_text(dump(config(source, **settings)))
    return path


class Training:
    """A root to train in, with shards and statistics that are there already; `start` is always the same command."""

    def __init__(self, data: Path, folder: Path, start: "Callable[[Training], subprocess.Popen]", **settings):
        self.root, self.log, self._start = folder / "runs", folder / "log", start
        shutil.copytree(data / "runs", self.root)
        self.config = write_config(folder / "config.toml", data / "source", **settings)

    def start(self) -> subprocess.Popen:
        return self._start(self)

    def points(self) -> list[dict]:
        """The whole lines of the history, as far as it is written."""
        texts = [path.read_text() for path in self.root.glob("train/*/history.jsonl")]
        return [json.loads(line) for text in texts for line in text.splitlines(True) if line.endswith("}\n")]

    def wait_for_points(self, count: int, driver: subprocess.Popen) -> None:
        """Until this many more points are there: a moment of the training, on any machine."""
        wanted = len(self.points()) + count
        crash.wait_until(lambda: len(self.points()) >= wanted, f"point {wanted}", 120, driver)

    def forget(self, count: int) -> None:
        """The last points are gone, as if the driver had been killed before it wrote them."""
        (path,) = self.root.glob("train/*/history.jsonl")
        path.write_text("".join(json.dumps(point) + "\n" for point in self.points()[:-count]))

    def model(self) -> dict[str, torch.Tensor]:
        (path,) = self.root.glob("train/*/model/model.safetensors")
        return load_file(path)


def in_process(training: Training) -> subprocess.Popen:
    return crash.start_in_process(training.root, training.config, "train", log=training.log)


def on_ray(training: Training) -> subprocess.Popen:
    return crash.start("train", "--root", training.root, "--config", training.config, log=training.log)
