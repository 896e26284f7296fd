"""What the tests of crashes, signals and clusters share: a tiny data set, and a training that nothing disturbed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import crash
import pytest
import tiny


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with a source, and `runs` in which ingest and stats are done."""
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny.write_config(folder / "config.toml", tiny.write_source(folder / "source"), tracking__uri="off")
    crash.finish(crash.start_in_process(folder / "runs", config, "ingest", "stats", log=folder / "log"), folder / "log")
    return folder


@pytest.fixture(scope="session")
def two_columns(data, tmp_path_factory) -> tiny.Training:
    """A finished training of two columns on two workers under Ray."""
    folder = tmp_path_factory.mktemp("two_columns")
    training = tiny.Training(data, folder / "training", tiny.on_ray, tracking__uri="off", **tiny.TWO_COLUMNS)
    crash.finish(training.start(), training.log)
    return training


@pytest.fixture
def hangups_are_heard() -> Iterator[None]:
    """What a test starts inherits it where the tests themselves run under nohup, and would not stop at a hangup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
