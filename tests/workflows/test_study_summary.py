"""Only runs of the same code and data are averaged; what is left out is named, and so is what failed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.storage import Folder
from workflows import recipes
from workflows.engine.outputs import Output
from workflows.engine.provenance import Code, is_alike
from workflows.studies.arms import Arm
from workflows.studies.comparison import Comparison
from workflows.studies.results import Result
from workflows.studies.summary import is_whole, summarise
from workflows.studies.words import headline, points, share, warnings

IMAGES = 50
C1, C2 = Code("c1", "d1"), Code("c2", "d2")


def done(folder: Path, arm: str, seed: int, share_wrong: float, **more) -> Result:
    """A run with predictions on the disk: the label is 0, and other classes are first where it is wrong."""
    rng = np.random.default_rng([seed, int(share_wrong * 100)])
    wrong_N = rng.random(IMAGES) < share_wrong
    place = folder / f"{arm}-{seed}"
    place.mkdir(parents=True)
    ids = rng.permutation(IMAGES)
    classes = [[1, 0, 2, 3, 4] if wrong_N[i] else [0, 1, 2, 3, 4] for i in ids]
    frame = pd.DataFrame({"id": ids, "label": np.zeros(IMAGES, "int32"), "classes": classes})
    frame.to_parquet(place / "predictions.parquet")
    given = {
        "manifest": "m" * 64,
        "codes": (C1,),
        "split": "val",
        "views": "ten crops",
        "finished": f"2026-01-0{seed + 1}",
    } | more
    return Result(
        arm,
        seed,
        "done",
        train_key=f"{arm}{seed}",
        num_images=IMAGES,
        device="cpu",
        measures={"top1_error_views": float(wrong_N.mean()), "train_loss": 1.0 + seed},
        evaluated=Output("evaluate", "k", Folder.at(place)),
        **given,
    )


def comparison(*names: str, seeds: int = 3) -> Comparison:
    return Comparison("c", recipes.demo(), tuple(map(Arm, names)), tuple(range(seeds)))


def summary_of(results: list[Result], names=("a", "b"), alike=lambda one, other: one == other):
    return summarise(comparison(*names), results, alike)


@pytest.fixture
def six(tmp_path):
    return [done(tmp_path, arm, seed, share) for arm, share in (("a", 0.2), ("b", 0.6)) for seed in range(3)]


def test_arms_and_pairs_are_those_of_numpy(six):
    found = summary_of(six)
    errors = {arm: np.array([r.measures["top1_error_views"] for r in six if r.arm == arm]) for arm in "ab"}
    for arm in found["arms"]:
        measured = arm["measures"]["top1_error_views"]
        assert (arm["n"], measured["se_of"]) == (3, "seeds")
        assert measured["mean"] == pytest.approx(errors[arm["name"]].mean())
        assert measured["se"] == pytest.approx(errors[arm["name"]].std(ddof=1) / 3**0.5)
    (pair,) = found["pairs"]
    wrong_RN = {arm: np.stack([r.wrong_N(1) for r in six if r.arm == arm]) for arm in "ab"}
    np.testing.assert_allclose(wrong_RN["a"].mean(1), errors["a"])
    by_image_N = (wrong_RN["b"].astype(int) - wrong_RN["a"]).mean(0)
    measured = pair["measures"]["top1_error_views"]
    assert measured["difference"] == pytest.approx((errors["b"] - errors["a"]).mean())
    assert measured["se_images"] == pytest.approx(by_image_N.std(ddof=1) / IMAGES**0.5)
    assert measured["significant"]
    assert pair["measures"]["train_loss"]["se_images"] is None
    assert is_whole(found)
    assert warnings(found) == []


def test_runs_of_other_code_are_named_and_not_averaged(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2) for seed in range(3)]
    results += [done(tmp_path, "b", seed, 0.3, codes=(C2,) if seed == 1 else (C1,)) for seed in range(3)]
    found = summary_of(results)
    assert [arm["n"] for arm in found["arms"]] == [3, 2]
    assert found["arms"][1]["seeds"] == found["pairs"][0]["seeds"] == [0, 2]
    (left_out,) = found["left_out"]
    assert (left_out["arm"], left_out["seed"]) == ("b", 1)
    assert warnings(found) == [
        "left out: b, seed 1: made by commit c2, the others by c1",
        "`alexnet clean train/b1 --yes`, and the same command makes again what is left out",
    ]


def test_a_run_that_two_commits_made_is_of_other_code(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2, codes=(C1, C2) if seed == 2 else (C1,)) for seed in range(3)]
    assert summary_of(results, "a")["left_out"][0]["reason"] == "made by commit c1 and c2, the others by c1"


def test_commits_that_give_the_same_count_as_one_and_are_named(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2, codes=(Code(f"c{seed}", "d"),)) for seed in range(3)]
    found = summary_of(results, "a", alike=is_alike)
    assert found["arms"][0]["n"] == 3
    assert found["notes"] == ["commits c0, c1, c2 differ in nothing that trains or evaluates, and count as one"]


def test_commits_that_both_made_every_run_are_not_said_to_be_alike(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2, codes=(C1, C2)) for seed in range(3)]
    found = summary_of(results, "a", alike=is_alike)
    assert found["arms"][0]["n"] == 3
    assert found["notes"] == []


def test_of_as_many_commits_the_newest_counts(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2, codes=(Code(f"c{seed}", f"d{seed}"),)) for seed in range(2)]
    assert summary_of(results, "a")["arms"][0]["seeds"] == [1]


def test_changes_that_no_commit_holds_are_told_apart_by_the_code_s_digest(tmp_path):
    digests = ("d" * 9, "d" * 9, "e" * 9)
    results = [done(tmp_path, "a", seed, 0.2, codes=(Code("c1+changes", digests[seed]),)) for seed in range(3)]
    found = summary_of(results, "a", alike=is_alike)
    assert found["arms"][0]["seeds"] == [0, 1]
    assert found["left_out"][0]["reason"] == "made by commit c1+changes eeeeeeee, the others by c1+changes dddddddd"
    assert found["notes"] == []
    (tmp_path / "old").mkdir()
    found = summary_of([done(tmp_path / "old", "a", 0, 0.2, codes=(Code("c1+changes"),))], "a")
    assert found["notes"] == ["made by c1+changes: whether of the same changes is not known"]


def test_several_versions_of_a_library_are_named(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2, libraries=(f"torch 2.{seed}", "numpy 2.0")) for seed in range(2)]
    assert summary_of(results, "a")["notes"] == ["made with several versions: numpy 2.0, torch 2.0, torch 2.1"]


@pytest.mark.parametrize("other", [{"manifest": "n" * 64}, {"split": "test"}])
def test_arms_of_other_data_are_not_compared(tmp_path, other):
    results = [done(tmp_path, "a", seed, 0.2) for seed in range(2)]
    results += [done(tmp_path, "b", seed, 0.2, **other) for seed in range(2)]
    found = summary_of(results)
    assert [arm["n"] for arm in found["arms"]] == [2, 2]
    assert found["pairs"][0]["note"] == "other data: not compared"
    assert found["pairs"][0]["measures"] == {}
    assert "arms are of different data" in found["notes"][0]


def test_a_run_of_other_data_than_its_arm_s_is_left_out(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2, **({"manifest": "n" * 64} if seed == 1 else {})) for seed in range(3)]
    found = summary_of(results, "a")
    assert found["arms"][0]["seeds"] == [0, 2]
    assert found["left_out"][0]["reason"] == "of other data (manifest nnnnnnnn, split val)"


def test_failed_and_missing_runs_are_said_and_the_others_compared(tmp_path):
    results = [done(tmp_path, "a", 0, 0.2), done(tmp_path, "b", 0, 0.4)]
    results += [Result("a", 1, "failed", "the loss is nan"), Result("b", 1, "missing")]
    found = summary_of(results)
    assert (found["states"], is_whole(found)) == ({"done": 2, "failed": 1, "missing": 1}, False)
    assert found["pairs"][0]["measures"]["top1_error_views"]["verdict"] == "one seed: not called significant"
    assert warnings(found) == [
        "2 of 4 runs are done",
        "failed: a, seed 1: the loss is nan",
        "with fewer than 3 seeds no difference is called significant",
    ]


def test_nothing_done_is_a_summary_too():
    found = summary_of([Result("a", 0, "missing"), Result("b", 0, "missing")])
    assert [arm["n"] for arm in found["arms"]] == [0, 0]
    assert found["pairs"][0]["note"] == "no seed in common yet"


def test_the_views_are_said_once_where_all_arms_have_the_same(tmp_path):
    results = [done(tmp_path, "a", 0, 0.2), done(tmp_path, "b", 0, 0.2, views="centre crop")]
    assert headline(summary_of(results[:1])) == "top-1 error, ten crops"
    found = summary_of(results)
    assert headline(found) == "top-1 error"
    assert [arm["views"] for arm in found["arms"]] == ["ten crops", "centre crop"]
    assert found["pairs"][0]["seeds"] == [0]


def test_a_baseline_is_compared_by_image_and_has_no_time_nor_views(tmp_path):
    results = [done(tmp_path, "a", seed, 0.2) for seed in range(3)]
    results += [done(tmp_path, "b", seed, 0.4, baseline="fisher", views="") for seed in range(3)]
    results[-1] = done(tmp_path / "old", "b", 2, 0.4, baseline="fisher", views="", codes=(C2,))
    found = summary_of(results)
    assert headline(found) == "top-1 error"
    assert headline(summary_of(results[3:5], "b")) == "top-1 error"
    assert found["pairs"][0]["seeds"] == [0, 1]
    assert found["pairs"][0]["measures"]["top1_error_views"]["se_images"] > 0
    assert [arm["parameters"] for arm in found["arms"]] == [None, None]
    assert warnings(found)[1].startswith("`alexnet clean fisher/b2 --yes`")


def test_numbers_in_words():
    assert share({"mean": 0.24812, "se": 0.0032, "se_of": "seeds"}) == "24.81 % ± 0.32"
    assert share({"mean": 0.24812, "se": 0.0032, "se_of": "test images"}) == "24.81 % ± 0.32*"
    assert share(None) == points(None) == "–"
    assert (points(0.012), points(-0.012), points(0.012, sign=False)) == ("+1.20", "−1.20", "1.20")
