"""`alexnet neighbours`: those of an obvious search in the features, with shares that can be counted by hand."""

import json
import shutil
import signal
from pathlib import Path

import crash
import numpy as np
import pandas as pd
import pytest
import tiny
from conftest import run_alexnet

from pipelines.neighbour_rows import BLOCK_ROWS, joined
from workflows.compute.workers import InProcess
from workflows.config import RunConfig, UsageError, dump, with_values
from workflows.engine.estimate import counts_of, left, predict
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import run
from workflows.report.finished_run import open_run
from workflows.workflow import STAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> tuple[Path, RunConfig]:
    """A root in which features were taken, and its configuration."""
    return tiny.features_taken(tmp_path_factory.mktemp("taken"))


def found_in(root: Path, config: RunConfig, compute: InProcess | None = None) -> Path:
    """The folder of the neighbours, which are looked for unless they are there."""
    rows = run(STAGES, config, root, only=("neighbours",), compute=lambda *_: compute or InProcess())
    return rows[-1].folder.local_path()


@pytest.mark.parametrize("split", ["val", "train"])
def test_neighbours_are_those_of_an_obvious_search(taken, split):
    root, config = taken
    folder = found_in(root, with_values(config, {"neighbours.split": split, "neighbours.top": 7}))
    finished = open_run(root)
    queries, train = (joined(finished.features(name)) for name in (split, "train"))
    frame = pd.read_parquet(folder / "neighbours.parquet")
    assert frame["key"].tolist() == queries.keys
    right = []
    for number, query in enumerate(queries.features_NU.astype(np.float64)):
        distances_N = np.linalg.norm(train.features_NU.astype(np.float64) - query, axis=1).astype(np.float32)
        others = [n for n in range(len(distances_N)) if split != "train" or train.ids_N[n] != queries.ids_N[number]]
        nearest = sorted(others, key=lambda n: (distances_N[n], train.ids_N[n]))[:7]
        row = frame.iloc[number]
        assert row["neighbour_ids"].tolist() == train.ids_N[nearest].tolist()
        assert row["neighbour_keys"].tolist() == [train.keys[n] for n in nearest]
        assert row["neighbour_labels"].tolist() == train.labels_N[nearest].tolist()
        np.testing.assert_allclose(row["distances"], distances_N[nearest], rtol=1e-6)
        right.append(np.mean(train.labels_N[nearest][:6] == queries.labels_N[number]))
    card = json.loads((folder / "neighbours.json").read_text())
    shares = card["right_class"]["features"]
    assert shares["6"] == pytest.approx(
        {"share": np.mean(right), "standard_error": np.std(right, ddof=1) / np.sqrt(len(right))}
    )
    assert list(shares) == ["1", "6"]
    counts_N = np.bincount(train.labels_N)
    assert card["right_class"]["chance"]["share"] == pytest.approx(np.mean(counts_N[queries.labels_N] / counts_N.sum()))
    rms = card["pixels"]["rms_levels"]
    assert 0 < rms["pixel_neighbours"]["mean"] <= rms["feature_neighbours"]["mean"] < 255
    assert rms["pixel_neighbours"]["mean"] < rms["random_images"]["mean"]


def test_an_interrupted_search_goes_on_with_the_missing_blocks(taken, monkeypatch):
    root, config = taken
    monkeypatch.setitem(BLOCK_ROWS, "cpu", 32)
    config = with_values(config, {"neighbours.split": "train", "neighbours.top": 3})
    with pytest.raises(KeyboardInterrupt):
        found_in(root, config, tiny.Interrupted(2))
    planned = plan(STAGES, config, places(config, root))
    step = next(step for step in planned if step.stage.name == "neighbours")
    counts = counts_of(planned)
    so_far = left(step, config, counts)
    assert (so_far.done, so_far.total, so_far.unit) == (2, 4, "blocks")
    assert predict(step, config, places(config, root), counts).units == counts["train"] ** 2 // 2
    parts = {path.name: path.stat().st_ino for path in (step.output.folder.local_path() / "parts").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        found_in(root, config, tiny.Interrupted(1))
    again = {path.name: path.stat().st_ino for path in (step.output.folder.local_path() / "parts").iterdir()}
    assert len(again) == 3
    assert parts.items() < again.items()
    whole = pd.read_parquet(found_in(root, config) / "neighbours.parquet")
    at_once = with_values(config, {"neighbours.duplicate_below": 0})  # another key
    monkeypatch.setitem(BLOCK_ROWS, "cpu", 2048)
    pd.testing.assert_frame_equal(pd.read_parquet(found_in(root, at_once) / "neighbours.parquet"), whole)


BLOCKS_OF_16 = """
import os, signal
from pipelines.neighbour_rows import BLOCK_ROWS
from workflows.compute.workers import InProcess
BLOCK_ROWS["cpu"] = 16
"""
KILLED = """
count, every = int(os.environ["KILLED_AFTER"]), InProcess.map
def map(self, *args, **options):
    global count
    for found in every(self, *args, **options):
        count -= 1
        if not count:
            os.kill(os.getpid(), signal.SIGKILL)
        yield found
InProcess.map = map
"""


def test_a_killed_search_goes_on_to_the_same_bytes(taken, tmp_path, monkeypatch):
    """Killed when some blocks of features are there, and again when those of pixels are."""
    config, log = tmp_path / "config.toml", tmp_path / "log"
    config.write_text(dump(with_values(taken[1], {"neighbours.split": "train"})))
    contents = []
    for name, kills in (("undisturbed", ()), ("killed", (3, 5))):
        root, known = tmp_path / name, dict[Path, int]()
        shutil.copytree(taken[0], root, ignore=shutil.ignore_patterns("neighbours"))  # of the other tests
        for results in kills:
            monkeypatch.setenv("KILLED_AFTER", str(results))
            driver = crash.start_in_process(root, config, "neighbours", log=log, first=BLOCKS_OF_16 + KILLED)
            assert driver.wait(timeout=300) == -signal.SIGKILL
            parts = {path: path.stat().st_mtime_ns for path in root.glob("neighbours/*/parts/*")}
            assert (len(parts), known.items() <= parts.items()) == (len(known) + results, True)
            known = parts
        assert [path.suffix for path in known].count(".npz") == len(kills) // 2
        crash.finish(crash.start_in_process(root, config, "neighbours", log=log, first=BLOCKS_OF_16), log)
        (folder,) = (path.parent for path in root.glob("neighbours/*/neighbours.json"))
        card = json.loads((folder / "neighbours.json").read_text())
        card.pop("queries_per_s")
        contents.append((card, *((folder / f"{each}.parquet").read_bytes() for each in ("neighbours", "duplicates"))))
    assert contents[0] == contents[1]


def test_duplicates_are_the_images_with_a_neighbour_at_nearly_no_distance(taken):
    root, config = taken
    folder = found_in(root, with_values(config, {"neighbours.duplicate_below": 1}))
    frame = pd.read_parquet(folder / "neighbours.parquet")
    nearest = frame["distances"].str[0]
    listed = pd.read_parquet(folder / "duplicates.parquet")
    assert listed["key"].tolist() == frame.loc[nearest < nearest.median(), "key"].tolist()
    assert 0 < len(listed) < len(frame)
    assert listed.iloc[0]["first_key"] == frame.set_index("key").loc[listed.iloc[0]["key"], "neighbour_keys"][0]
    assert json.loads((folder / "neighbours.json").read_text())["duplicates"]["count"] == len(listed)


def test_an_index_is_kept_and_judged_and_search_uses_it(taken, tmp_path):
    pytest.importorskip("faiss")
    root, config = taken
    folder = found_in(root, with_values(config, {"neighbours.index": "flat", "neighbours.top": 6}))
    card = json.loads((folder / "neighbours.json").read_text())["index"]
    assert card["kind"] == "flat"
    assert card["bytes"] == (folder / "index.faiss").stat().st_size
    assert card["recall"]["6"] > 0.95
    assert card["queries_per_s"] > 0
    key = open_run(root).neighbours["neighbour_keys"][0][0]
    image = Path(config.ingest.source) / key
    found = run_alexnet("search", image, "--root", root, "--json", "--top", 3)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)[0]["neighbours"][0]["key"] == key
    (folder / "index.faiss").write_bytes(b"no index")
    assert "index.faiss" in run_alexnet("search", image, "--root", root).stderr
    with pytest.raises(UsageError, match=r"ivfpq needs 9,984 training images or more, and there are 106: .*=flat"):
        found_in(root, with_values(config, {"neighbours.index": "ivfpq"}))


def test_a_split_without_features_is_refused(taken):
    root, config = taken
    with pytest.raises(UsageError, match=r"need features of test, .* set features.splits=train,val,test"):
        found_in(root, with_values(config, {"neighbours.split": "test"}))
