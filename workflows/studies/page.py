"""The page of a comparison: its arms with error bars, their differences, curves as bands, and every run."""

import json
from collections.abc import Sequence
from typing import Any

from pipelines.storage import Folder
from workflows import config as configuration
from workflows.console import duration
from workflows.report import figures_compare
from workflows.report.album import saved
from workflows.report.page import Html, Right, code, details, element, page, paragraph, percent, table
from workflows.studies.comparison import Comparison
from workflows.studies.results import HEADLINE, SHARES, Result
from workflows.studies.statistics import LEVEL
from workflows.studies.words import headline, output_of, points, share, warnings

PAGE, FIGURES = "page.html", "figures"
CURVES = {"val_top1_error": "validation top-1 error", "epoch_loss": "training loss"}
BARS = (
    "± is the standard error of the mean: over seeds where there are two or more runs, of the test images where there "
    "is one (marked *)."
)


def write(comparison: Comparison, results: Sequence[Result], summary: dict[str, Any], folder: Folder) -> None:
    """Writes `page.html` and `figures/*.png`."""
    shown = [arm for arm in summary["arms"] if arm["n"]]
    kept = {arm["name"]: [r for r in results if r.arm == arm["name"] and r.seed in arm["seeds"]] for arm in shown}
    pictures = folder.child(FIGURES)
    sections: dict[str, list[Html]] = {}
    if shown:
        sections["Errors"] = [_arms(shown), _points(shown, kept, headline(summary), pictures), *_pairs(summary)]
        if curves := _curves(kept, pictures):
            sections["Curves"] = curves
        sections["Time"] = [_time(shown)]
    sections["Runs"] = [_runs(results, summary), *_settings(comparison)]
    folder.write(PAGE, page(f"Comparison {comparison.name}", _lead(comparison, shown, summary), sections).encode())


def _lead(comparison: Comparison, shown: list[dict], summary: dict[str, Any]) -> list[Html]:
    seeds = f"{len(comparison.seeds)} seed{'s' if len(comparison.seeds) > 1 else ''}"
    said = f"{len(comparison.arms)} arms of the recipe {comparison.base.recipe}, each with {seeds}"
    images = sorted({f"{arm['num_images']:,} images of the split “{arm['split']}”" for arm in shown})
    tested = f", tested on {' and '.join(images)}" if images else ""
    chance = "weights, dropout, order and augmentation"
    if any(arm.baseline for arm in comparison.arms):
        chance += ", of a baseline its vocabulary and order"
    facts = f"A seed sets {chance}; arms share seeds, so differences are paired."
    return [
        element("p", f"{said}{tested}.", class_="lead"),
        *(element("p", line, class_="facts") for line in (facts, *warnings(summary))),
    ]


def _arms(shown: list[dict]) -> Html:
    rows = [
        (arm["name"], arm["n"], arm["views"], *(Right(share(arm["measures"].get(measure.name))) for measure in SHARES))
        for arm in shown
    ]
    return table(
        ["arm", "runs", "views", *(measure.title for measure in SHARES)],
        rows,
        f"Mean errors on the test images. {BARS}",
    )


def _points(shown: list[dict], kept: dict[str, list[Result]], title: str, folder: Folder) -> Html:
    name, spreads = HEADLINE.name, []
    for arm in shown:
        found, values = arm["measures"][name], [100 * one.measures[name] for one in kept[arm["name"]]]
        interval = found["interval"] and tuple(100 * end for end in found["interval"])
        spreads.append(figures_compare.Spread(arm["name"], values, 100 * found["mean"], interval))
    caption = (
        f"{title.capitalize()}: the mean of each arm with its {LEVEL:.0%} interval (Student’s t over seeds; "
        "of one seed that of the test images), and its runs as dots."
    )
    return saved(folder, "errors", figures_compare.points(spreads, "error, %"), caption, "Errors with intervals")


def _pairs(summary: dict[str, Any]) -> list[Html]:
    rows = []
    for pair in summary["pairs"]:
        found = pair["measures"].get(HEADLINE.name)
        titles = (f"{pair['second']} less {pair['first']}", len(pair["seeds"]))
        if found:
            bars = (points(found["se_seeds"], sign=False), points(found["se_images"], sign=False))
            rows.append((*titles, Right(points(found["difference"])), *map(Right, bars), found["verdict"]))
        else:
            rows.append((*titles, *map(Right, "–––"), pair["note"]))
    caption = (
        f"Differences of {headline(summary)}, in points of a hundred, paired by seed. Their standard errors: over "
        "seeds, and from the same test images (paired by image, as McNemar’s test). Significant: three seeds or more, "
        f"and the {LEVEL:.0%} interval over them (Student’s t) leaves out zero. Many pairs are not corrected for."
    )
    heading = ["difference", "seeds", "points", "± seeds", "± images", ""]
    return [table(heading, rows, caption)] if rows else []


def _curves(kept: dict[str, list[Result]], folder: Folder) -> list[Html]:
    """Of the arms that have them."""
    drawn = {name: {arm: runs if _have(runs, name) else [] for arm, runs in kept.items()} for name in CURVES}
    return [_curve(drawn[name], name, title, folder) for name, title in CURVES.items() if any(drawn[name].values())]


def _have(runs: Sequence[Result], name: str) -> bool:
    """Whether all of them have this curve; baselines have none."""
    return all(one.curve(name)[0] for one in runs)


def _curve(kept: dict[str, list[Result]], name: str, title: str, folder: Folder) -> Html:
    scale = 100 if name.endswith("error") else 1
    curves = {
        arm: [(x, [scale * value for value in y]) for x, y in (one.curve(name) for one in runs)]
        for arm, runs in kept.items()
    }
    unit = ", %" if scale == 100 else ""
    figure = figures_compare.bands(curves, f"{title}{unit}", "epoch")
    caption = (
        f"{title.capitalize()} after each epoch: the mean of an arm’s runs, in a band from the lowest to the highest."
    )
    return saved(folder, name, figure, caption, f"Curves of the {title}")


def _time(shown: list[dict]) -> Html:
    rows = []
    for arm in shown:
        rate, seconds = (arm["measures"].get(name) for name in ("images_per_s", "train_s"))
        rows.append(
            (
                arm["name"],
                Right("–" if arm["parameters"] is None else f"{arm['parameters']:,}"),
                Right(f"{rate['mean']:,.0f}" if rate else "–"),
                Right(duration(seconds["mean"]) if seconds else "–"),
            )
        )
    caption = (
        "Means over an arm’s runs: of images a second the median between reports; of time all epochs, with validation."
    )
    return table(["arm", "parameters", "images/s", "training"], rows, caption)


def _runs(results: Sequence[Result], summary: dict[str, Any]) -> Html:
    why = {(one["arm"], one["seed"]): one["reason"] for one in (*summary["failed"], *summary["left_out"])}
    rows = []
    for one in results:
        error = one.measures.get(HEADLINE.name)
        state = "left out" if one.is_done and (one.arm, one.seed) in why else one.state
        rows.append(
            (
                one.arm,
                one.seed,
                state,
                Right("–" if error is None else percent(error)),
                one.finished[:16].replace("T", " "),
                code(", ".join(map(str, one.codes))),
                code(one.manifest[:8]),
                code(output_of(vars(one))),
                why.get((one.arm, one.seed), ""),
            )
        )
    heading = ["arm", "seed", "state", "error", "finished (UTC)", "commit", "data", "output", ""]
    caption = f"All runs, with {headline(summary)}, the code, the data’s manifest and what they were trained into."
    return table(heading, rows, caption)


def _settings(comparison: Comparison) -> list[Html]:
    arms = {arm.name: arm.settings for arm in comparison.arms}
    return [
        paragraph("What each arm sets, and the configuration that they share:"),
        details("Arms", json.dumps(arms, indent=1, ensure_ascii=False)),
        details("Configuration", configuration.dump(comparison.base)),
    ]
