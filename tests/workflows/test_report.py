"""The report stands alone, says what the stages found, and can be made of very little."""

import base64
import io
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from builders import write_files
from PIL import Image
from tiny import config as tiny_config

from pipelines.alike import percent as percent_with_error
from pipelines.manifest import Manifest
from pipelines.neighbours import Share
from pipelines.shards import read_shard
from pipelines.storage import Folder
from workflows import config as configuration
from workflows import recipes
from workflows.compute.workers import InProcess
from workflows.config import with_values
from workflows.engine.run import run
from workflows.report import figures, figures_net, likeness, samples, sections_neighbours
from workflows.report.album import Album
from workflows.report.finished_run import FinishedRun, open_run
from workflows.report.page import code, element, page, paragraph, percent, table
from workflows.report.published import benchmark
from workflows.workflow import NAMES, OF_A_RUN, STAGES

TINY = {
    "ingest.limit": 24,
    "ingest.max_bad": 0.1,
    "train.epochs": 1,
    "train.batch_size": 8,
    "train.placement": "one",
    "tracking.uri": "off",
}


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    """The root of a whole workflow over a few drawn images, one epoch, in this process; with their neighbours."""
    return run_tiny(tmp_path_factory.mktemp("runs"), also=("features", "neighbours"))


@pytest.fixture(scope="module")
def tiny(tiny_root) -> FinishedRun:
    return open_run(tiny_root)


def run_tiny(root, also: tuple[str, ...] = (), **settings):
    config = with_values(recipes.demo(), TINY | settings)
    run(STAGES, config, root, only=(*OF_A_RUN, *also), compute=lambda *_: InProcess())
    return root


def report_of(finished: FinishedRun) -> str:
    return finished.output("report").folder.read("report.html").decode()


def inline_images(html: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,([^"]+)"', html)]


@pytest.mark.slow
def test_the_page_needs_nothing_but_itself(tiny):
    html = report_of(tiny)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", html)
    assert "url(" not in html
    assert "<script" not in html
    saved = sorted((tiny.output("report").folder.local_path() / "figures").iterdir())
    shown = inline_images(html)
    assert len(shown) == len(saved) == 15
    assert sorted(image.size for image in shown) == sorted(Image.open(path).size for path in saved)


@pytest.mark.slow
def test_the_page_links_to_sections_that_are_there(tiny):
    html = report_of(tiny)
    targets = re.findall(r'href="#([^"]+)"', html)
    assert targets
    assert all(f'id="{target}"' in html for target in targets)


@pytest.mark.slow
def test_the_page_says_what_the_stages_found(tiny):
    html = report_of(tiny)
    assert "<h1>AlexNet, recipe demo</h1>" in html
    assert "A two-column network trained on" in html
    assert "with dropout" in html
    for name in ("top1_error", "top5_error", "top1_error_ten_crop", "top5_error_ten_crop"):
        assert f"<dd>{percent(tiny.evaluation[name])}</dd>" in html
    for stage in ("ingest", "stats", "train", "evaluate"):
        assert tiny.record(stage)["key"] in html
    assert f"{sum(layer.params for layer in tiny.layers):,}" in html
    for damaged in tiny.quarantine.itertuples():
        assert damaged.key in html
        assert damaged.reason.replace("'", "&#x27;") in html


@pytest.mark.slow
def test_neighbours_are_those_of_the_stage_of_its_own(tiny):
    """The report of few images looks for them itself, in features that nobody has rounded."""
    report, stage = likeness.likeness(without_neighbours(tiny)), likeness.likeness(tiny)
    np.testing.assert_array_equal(report.ids_Q, stage.ids_Q)
    assert np.mean(report.neighbour_ids_QK[:, :6] == stage.neighbour_ids_QK[:, :6]) > 0.9
    assert report.card["right_class"]["pixels"] == stage.card["right_class"]["pixels"]
    rms = report.card["pixels"]["rms_levels"]
    assert rms["random_images"] == pytest.approx(stage.card["pixels"]["rms_levels"]["random_images"])
    html = report_of(tiny)
    assert percent_with_error(Share(**report.card["right_class"]["features"]["6"])) in html
    assert f"by features are {rms['feature_neighbours']['mean']:.1f} levels" in html


@pytest.mark.slow
def test_of_many_images_the_report_shows_neighbours_once_they_are_looked_for(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(likeness, "SMALL_IMAGES", 10)
    (said,) = sections_neighbours.neighbours(Album(without_neighbours(tiny), Folder.at(tmp_path)))
    assert "<code>alexnet neighbours</code>, and then <code>alexnet report --redo report</code>" in said
    assert len(sections_neighbours.neighbours(Album(tiny, Folder.at(tmp_path)))) == 3


def without_neighbours(finished: FinishedRun) -> FinishedRun:
    return replace(finished, outputs={k: v for k, v in finished.outputs.items() if k != "neighbours"})


@pytest.mark.slow
def test_no_comparison_with_the_paper_on_other_images(tiny):
    html = report_of(tiny)
    assert "its numbers are not shown beside ours" in html
    assert percent(0.407) not in html
    assert percent(0.375) not in html


@pytest.mark.slow
def test_a_network_of_ones_own_is_named_and_listed(tmp_path):
    made = {"net.kind": "module:tests.model.own_networks:residual"}
    html = report_of(open_run(run_tiny(tmp_path, **made)))
    assert "<h1>tests.model.own_networks:residual, recipe demo</h1>" in html
    assert "A network trained on" in html
    assert "with dropout" not in html  # nobody knows what it does
    assert "<td>block.0.conv</td><td>Conv2d</td>" in html
    assert "The 8 kernels of the first layer" in html


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"ingest.limit": 3, "net.columns": 1, "loader.lighting": "off", "evaluate.views": "one"},
        {"ingest.limit": 9, "ingest.encoding": "raw", "ingest.format": "parquet", "loader.lighting": "eigenvalue"},
        {"ingest.limit": 9, "evaluate.split": "train", "evaluate.weights": "best", "net.mean": "channel"}
        | {"evaluate.views": "nine"},
    ],
)
def test_a_report_of_very_few_images(settings, tmp_path):
    finished = open_run(run_tiny(tmp_path, **settings))
    html = report_of(finished)
    assert len(inline_images(html)) >= 12
    views = settings.get("evaluate.views", "ten")
    assert list(finished.errors) == ([] if views == "one" else [f"{views} crops"]) + ["centre crop"]
    assert all(f"<dt>top-1 error, {words}</dt>" in html for words in finished.errors)
    assert len(finished.evaluation) == (4 if views == "one" else 6)
    assert not re.findall(r"\b(?:nan|None|inf)\b", re.sub(r'base64,[^"]+"', "", html))


def png(pixels_HW: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_HW).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("greatest", "lighting", "stages"),
    [(255, "sigma", OF_A_RUN), (0, "sigma", NAMES), (255, "eigenvalue", NAMES), (0, "eigenvalue", OF_A_RUN)],
    ids=["gray", "black, every stage", "gray, every stage", "black"],
)
def test_gray_images_of_classes_with_odd_names_go_all_the_way(tmp_path, capsys, greatest, lighting, stages):
    names = ("under_$10_vs_$20", "<script>&", "red\x1b[31m\n", "\U0001b170")
    levels = np.random.default_rng(0).integers(0, greatest + 1, (len(names), 30, 40, 32), np.uint8)
    files = {f"{name}/{i}.png": png(levels[k, i]) for k, name in enumerate(names) for i in range(30)}
    config = tiny_config(
        write_files(tmp_path / "source", files),
        train__epochs=2, train__placement="one", tracking__uri="off", loader__lighting=lighting,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(STAGES, config, tmp_path / "runs", only=stages, compute=lambda *_: InProcess())
    assert not [
        w for w in warned if "workflows" in w.filename or "matplotlib" in w.filename or "pipelines" in w.filename
    ]
    finished = open_run(tmp_path / "runs")
    assert (finished.statistics.eigenvalues > 0).tolist() == [greatest > 0, False, False]
    assert np.isfinite(finished.steps["loss"]).all()
    html = report_of(finished)
    assert "<script" not in html
    assert len(finished.duplicates) == (0 if greatest else 119)
    assert ("No two stored images have the same bytes" in html) == (greatest > 0)
    assert ("119 images are stored again with the same bytes" in html) == (greatest == 0)
    assert figures.named(finished.manifest.class_titles, 3) == "class 3"
    said = capsys.readouterr().err
    assert said.count("pictures have no font for NUSHU") == 1
    assert "\x1b" not in said


@pytest.mark.slow
def test_samples_are_the_images_of_their_ids_and_classes(tiny):
    manifest, shards = tiny.manifest, tiny.shards
    stored = {}
    for record in manifest.splits["train"]:
        rows = read_shard(shards, record)
        stored |= {i: (key, label) for i, key, label in zip(rows.ids, rows.keys, rows.labels, strict=True)}
    ids = [17, 3, 11]
    found = samples.with_ids(shards, manifest, "train", ids)
    assert [sample.id for sample in found] == ids
    assert all((sample.key, sample.label) == stored[sample.id] for sample in found)
    for label, chosen in samples.by_class(shards, "train", [0, 4], 2).items():
        assert 1 <= len(chosen) <= 2
        assert all(sample.label == label for sample in chosen)
    first = samples.first(shards, manifest, "val", 5)
    assert [sample.id for sample in first] == sorted(i for i in range(6) if i not in set_aside(manifest, "val"))[:5]


def set_aside(manifest: Manifest, split: str) -> set[int]:
    return {entry.id for record in manifest.splits[split] for entry in record.quarantined}


@pytest.mark.slow
def test_a_finished_run_stays_readable_when_the_configuration_moves_on(tiny, tiny_root, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(tiny_root, root)
    moved_on = with_values(tiny.config, {"train.epochs": 7, "net.fc": [64, 64], "ray.num_cpus": 1})
    (root / "config.toml").write_text(configuration.dump(moved_on))
    found = open_run(root)
    assert found.record("evaluate") == tiny.record("evaluate")
    assert found.net == tiny.net
    assert found.config.train.epochs == 1
    assert found.config.ray.num_cpus == 1


@pytest.mark.slow
def test_a_stage_that_has_not_finished_is_named(tiny_root, tmp_path):
    for name in ("config.toml", "ingest", "stats"):
        (shutil.copytree if (tiny_root / name).is_dir() else shutil.copy)(tiny_root / name, tmp_path / name)
    half = open_run(tmp_path)
    assert half.statistics.num_images
    with pytest.raises(ValueError, match="train has not finished under .*; run `alexnet train`"):
        _ = half.steps


def test_a_root_without_a_run_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="holds no run; `alexnet run --root"):
        open_run(tmp_path)


def test_text_is_escaped_wherever_it_enters():
    evil = '<script>alert("1")</script>'
    html = page(
        evil, [paragraph(evil)], {"A": [table([evil], [[evil]], evil), code(evil), element("p", evil, id=evil)]}
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 9


def test_numbers_stand_to_the_right_with_their_titles():
    html = table(["a", "b"], [["x", 1234567], ["y", 8]])
    assert '<th>a</th><th class="number">b</th>' in html
    assert '<td>x</td><td class="number">1,234,567</td>' in html


@pytest.mark.parametrize(
    ("kind", "split", "listed", "classes", "known"),
    [
        ("ilsvrc2012", "val", 50_000, 1000, "ILSVRC-2012 validation"),
        ("kaggle", "val", 50_000, 1000, "ILSVRC-2012 validation"),
        ("ilsvrc2010", "test", 150_000, 1000, "ILSVRC-2010 test"),
        ("ilsvrc2012", "val", 500, 1000, None),
        ("ilsvrc2012", "train", 50_000, 1000, None),
        ("ilsvrc2010", "val", 50_000, 1000, None),
        ("kaggle", "val", 50_000, 100, None),
        ("folder", "val", 50_000, 1000, None),
    ],
)
def test_the_paper_is_compared_on_its_own_images_only(kind, split, listed, classes, known):
    manifest = manifest_of(kind, split, listed, classes)
    found = benchmark(manifest, split)
    assert (found and found.name) == known


def manifest_of(kind: str, split: str, listed: int, classes: int) -> Manifest:
    from pipelines.shard_record import ShardRecord

    record = ShardRecord(f"{split}-00000-of-00001.parquet", split, 0, listed, listed, 1, "")
    names = tuple(map(str, range(classes)))
    return Manifest("parquet", "jpeg", 256, names, names, kind, "", {}, {split: (record,)}, {}, {})


def test_the_share_of_colour_is_none_for_grey_and_all_for_opponent_kernels():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(4, 1, 7, 7)), 3, axis=1)
    opponent = rng.normal(size=(4, 1, 7, 7)) * np.array([1, -1, 0])[:, None, None]
    red = rng.normal(size=(4, 1, 7, 7)) * np.array([1, 0, 0])[:, None, None]
    share = figures_net.chroma_share(np.concatenate([grey, opponent, red, np.zeros((1, 3, 7, 7))]))
    np.testing.assert_allclose(share, [0] * 4 + [1] * 4 + [2 / 3] * 4 + [0], atol=1e-12)


@pytest.mark.parametrize(("count", "names"), [(1, [""]), (2, ["column 1", "column 2"])])
def test_columns_are_named_where_there_are_two(count, names):
    kernels = [np.random.default_rng(0).normal(size=(4, 3, 5, 5))] * count
    axis = figures_net.chroma_by_column(kernels).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == names


def test_kernels_are_drawn_on_one_scale_whatever_their_strength():
    kernels = np.random.default_rng(0).normal(size=(20, 3, 5, 5))
    drawn = [axis.images[0].get_array() for axis in figures_net.conv1_kernels([kernels, 7 * kernels + 3]).axes]
    assert drawn[0].shape == (5 + 1 + 5, 16 * 6 - 1, 3)  # 16 in a row, gaps of one pixel
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-9)
    assert (drawn[0].min(), drawn[0].max()) == pytest.approx((0, 1))
    assert (drawn[0][:, 5] == 1).all()
    second = kernels[1] - kernels[1].mean()
    np.testing.assert_allclose(np.corrcoef(drawn[0][:5, 6:11].transpose(2, 0, 1).ravel(), second.ravel())[0, 1], 1)


def test_a_sheet_keeps_rows_and_leaves_short_ones_white():
    red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page_HWC = figures.sheet([[red, blue], [blue]], tile_px=16, gap_px=2)
    assert page_HWC.shape == (34, 34, 3)
    centres = figures.centres(2, 16, 2).astype(int)
    tiles = [page_HWC[y, x].tolist() for y in centres for x in centres]
    assert tiles == [[255, 0, 0], [0, 0, 255], [0, 0, 255], [255, 255, 255]]


def test_augmented_images_are_cut_mirrored_and_lit_in_this_order():
    pixels = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    seen = samples.augmented(pixels, 4, 1, 2, True, np.array([1.0, 300.0, -300.0]))
    assert seen[0, 0].tolist() == [int(pixels[1, 5, 0]) + 1, 255, 0]
    assert seen[3, 3].tolist() == [int(pixels[4, 2, 0]) + 1, 255, 0]


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.png(figures_net.chroma_by_column([np.ones((4, 3, 5, 5))]))
    assert dict(matplotlib.rcParams) == before
