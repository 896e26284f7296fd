"""What the report says of the errors: how many, beside the paper's, which ones; and where all results came from."""

from collections import Counter

import numpy as np

from workflows import config as configuration
from workflows.console import duration
from workflows.report import figures_results, samples
from workflows.report.album import Album
from workflows.report.figures import short
from workflows.report.finished_run import FinishedRun
from workflows.report.page import Html, Right, code, details, paragraph, percent, table
from workflows.report.published import benchmark

MADE_BY = ("ingest", "stats", "train", "evaluate")
IMAGES_SHOWN = 8
HARDEST_SHOWN = 10


def errors(album: Album) -> list[Html]:
    """The errors (beside the paper's where the images are the same), what some images were taken for, confusions."""
    run, found = album.run, album.run.evaluation
    return [
        _error_table(run),
        *_together(run),
        *_left_out(run),
        *_predictions(
            album,
            run.predictions.sort_values("id").head(IMAGES_SHOWN),
            "top_five",
            f"The first {found['split']} images in stored order with the five likeliest classes ({run.views}); "
            "the true class is above the bars, and its bar is red (the paper’s Figure 4, left).",
        ),
        *_predictions(
            album,
            _surest_mistakes(run),
            "mistakes",
            "Where the network was surest and wrong: the images whose wrong first class got the highest probability.",
        ),
        *_confusion(album),
    ]


def _error_table(run: FinishedRun) -> Html:
    found, known = run.evaluation, benchmark(run.manifest, run.evaluation["split"])
    rows = [(f"this run, {crops}", *map(_percent, errors)) for crops, errors in run.errors.items()]
    images = f"{found['num_images']:,} images of the split “{found['split']}”"
    if known:
        rows += [(r.name, _percent(r.top1_error), _percent(r.top5_error)) for r in known.results]
        caption = f"Errors on the {images}, which are the {known.name} images that the paper reports on."
    else:
        caption = (
            f"Errors on the {images}. The paper reports on ILSVRC-2010 test and ILSVRC-2012 validation images; these "
            "are others, so its numbers are not shown beside ours."
        )
    return table(["", "top-1 error", "top-5 error"], rows, caption)


def _together(run: FinishedRun) -> list[Html]:
    """Where several models were averaged: each one's errors, and what the average loses without it."""
    found = run.evaluation
    if "models" not in found:
        return []
    rows = [
        (code(model["model"]), *_percents(model), Right(_points(model.get("costs_to_leave_out"))))
        for model in found["models"]
    ]
    rows.append(("their average", *_percents(found["average"]), ""))
    caption = (
        f"Each model alone and the average of their probabilities, {run.views}; the last column says how many points "
        "the average’s top-1 error rises without the model. What follows is the average’s."
    )
    return [table(["", "top-1 error", "top-5 error", "left out"], rows, caption)]


def _left_out(run: FinishedRun) -> list[Html]:
    """Where images were left out: how far that moves the error."""
    found = run.evaluation.get("left_out")
    if not found:
        return []
    return [
        paragraph(
            f"Without the {found['images']:,} images that ",
            code("evaluate.leave_out"),
            f" lists, the top-1 error is {percent(found['top1_error'])} instead of "
            f"{percent(found['top1_error_of_all'])}, the top-5 error {percent(found['top5_error'])} instead of "
            f"{percent(found['top5_error_of_all'])}, {run.views}.",
        )
    ]


def _points(difference: float | None) -> str:
    return "–" if difference is None else f"{100 * difference:+.2f}".replace("-", "−")


def _percents(errors: dict[str, float]) -> list[Right]:
    return [_percent(errors[f"top{k}_error"]) for k in (1, 5)]


def _percent(error: float) -> Right:
    return Right(percent(error))


def _surest_mistakes(run: FinishedRun):
    frame = run.predictions
    first = frame["classes"].str[0]
    wrong = frame[(first != frame["label"]) & (frame["label"] >= 0)]
    surest = wrong["probabilities"].str[0].sort_values(ascending=False, kind="stable").index
    return wrong.loc[surest[:IMAGES_SHOWN]]


def _predictions(album: Album, rows, name: str, caption: str) -> list[Html]:
    run, rows = album.run, rows[rows["label"] >= 0]
    if rows.empty:
        return []
    images = samples.with_ids(run.shards, run.manifest, run.evaluation["split"], rows["id"].tolist())
    figure = figures_results.top_five(
        [image.pixels_HWC for image in images],
        rows["label"].tolist(),
        rows["classes"].tolist(),
        rows["probabilities"].tolist(),
        run.manifest.class_titles,
    )
    return [album.add(name, figure, caption, "Images over bars of their five likeliest classes")]


def _confusion(album: Album) -> list[Html]:
    """Who is taken for whom: a matrix, or for many classes the ten that are hardest."""
    titles = album.run.manifest.class_titles
    known = album.run.predictions[album.run.predictions["label"] >= 0]
    if known.empty:
        return []
    labels, named = known["label"].to_numpy(), known["classes"].str[0].to_numpy(int)
    if len(titles) > figures_results.MAX_CONFUSION:
        return [_hardest(labels, named, titles, album.run.views)]
    figure = figures_results.confusion(labels, named, titles)
    caption = "Confusions, % of the images of each true class (rows), by the likeliest class (columns)."
    return [album.add("confusion", figure, caption, "Confusion matrix")]


def _hardest(labels: np.ndarray, named: np.ndarray, titles: tuple[str, ...], views: str) -> Html:
    counts, wrong = (np.bincount(labels, weights, len(titles)) for weights in (None, labels != named))
    error = wrong / np.maximum(counts, 1)
    rows = []
    for label in np.argsort(-error, kind="stable")[:HARDEST_SHOWN]:
        taken_for = Counter(named[(labels == label) & (named != label)].tolist()).most_common(1)
        words = [f"{short(titles[other], 40)} ({times} of {counts[label]})" for other, times in taken_for]
        rows.append((short(titles[label], 40), Right(percent(error[label])), *(words or ["none"])))
    return table(["class", "error", "most often taken for"], rows, f"The hardest classes, by top-1 error, {views}.")


def provenance(album: Album) -> list[Html]:
    """Which runs made what is shown, from which code, with which versions and configuration."""
    run = album.run
    records = [run.record(stage) for stage in MADE_BY]
    rows = [
        (
            record["stage"],
            code(record["key"]),
            record["finished"][:16].replace("T", " "),
            Right(duration(record["seconds"])),
            code(record["commit"][:10] + record["commit"][40:]),
            code(record["mlflow_run_id"]),
        )
        for record in records
    ]
    versions = ", ".join(f"{name} {version}" for name, version in records[-1]["versions"].items())
    return [
        table(
            ["stage", "key", "finished (UTC)", "time", "commit", "MLflow run"],
            rows,
            "The stages whose results are shown. A key digests all that a stage’s results depend on: its "
            "configuration, the version of its code and the keys of its inputs.",
        ),
        paragraph(f"{versions}. Data: {run.manifest.source_kind}, manifest ", code(run.manifest.digest[:16]), "."),
        details("Configuration", configuration.dump(run.config)),
    ]
