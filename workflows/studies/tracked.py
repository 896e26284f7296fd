"""A comparison in MLflow: one run with its table, summary and page, and a tag on its arms' runs that groups them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workflows.config import UsageError
from workflows.engine.provenance import code_commit
from workflows.studies.comparison import Comparison
from workflows.studies.page import FIGURES, PAGE
from workflows.studies.results import HEADLINE, RESULTS, SHARES, Result
from workflows.studies.summary import SUMMARY
from workflows.studies.words import headline, points, share, warnings
from workflows.tracking.headline import provenance
from workflows.tracking.notes import run_link
from workflows.tracking.tracker import tracker


def tag(name: str) -> str:
    """Of the arms' runs of train and evaluate, with the arm as its value; a run may be in several comparisons."""
    return f"compare.{name}"


def track(
    comparison: Comparison,
    results: Sequence[Result],
    summary: dict[str, Any],
    root: Path,
    say: Callable[[str], None],
    files: Sequence[Path] = (),
) -> None:
    """Opens the comparison's run, with these files too, and tags the others; that MLflow is away is no failure."""
    tracking = tracker(comparison.base.tracking, root, say)
    status = "FAILED"
    try:
        tags = {"alexnet.kind": "comparison", "alexnet.compare": comparison.name, **provenance(code_commit())}
        run = tracking.begin_workflow(comparison.name, tags, _params(comparison))
        run.metrics(_metrics(summary))
        run.note(_note(comparison.name, results, summary, tracking.experiment_id))
        folder = comparison.folder(root).local_path()
        for name in (RESULTS, SUMMARY, PAGE):
            run.artifact(folder / name)
        run.artifact(folder / FIGURES, FIGURES)
        for path in files:
            run.artifact(path)
        for one in results:
            for run_id in filter(None, (one.train_run, one.evaluate_run)):
                tracking.closed(run_id).tags({tag(comparison.name): one.arm})
        status = "FINISHED"
    except UsageError as error:
        say(f"the comparison is not in MLflow: {error}")
    finally:
        tracking.end_workflow(status)


def _params(comparison: Comparison) -> dict[str, Any]:
    seeds = ", ".join(map(str, comparison.seeds))
    return {"recipe": comparison.base.recipe, "arms": "; ".join(arm.name for arm in comparison.arms), "seeds": seeds}


def _metrics(summary: dict[str, Any]) -> dict[str, float]:
    """`top1_error_views/ARM`, with what MLflow takes in a name."""
    return {
        re.sub(r"[^\w\-. /:]", "_", f"{measure.name}/{arm['name']}"): arm["measures"][measure.name]["mean"]
        for arm in summary["arms"]
        for measure in SHARES
        if measure.name in arm["measures"]
    }


def _note(name: str, results: Sequence[Result], summary: dict[str, Any], experiment_id: str) -> str:
    """Arms with their errors and links to their runs, and differences, in markdown."""
    lines = [f"| arm | runs | {headline(summary)} | evaluated by |", "| --- | --- | --- | --- |"]
    for arm in summary["arms"]:
        found = [one for one in results if one.arm == arm["name"] and one.evaluate_run]
        links = ", ".join(f"[seed {one.seed}]({run_link(experiment_id, one.evaluate_run)})" for one in found)
        error = share(arm["measures"].get(HEADLINE.name))
        lines.append(f"| {_cell(arm['name'])} | {arm['n']} | {error} | {links} |")
    lines += ["", "| difference | points | |", "| --- | --- | --- |"]
    for pair in summary["pairs"]:
        difference = pair["measures"].get(HEADLINE.name, {"difference": None, "verdict": pair["note"]})
        title = _cell(f"{pair['second']} less {pair['first']}")
        lines.append(f"| {title} | {points(difference['difference'])} | {difference['verdict']} |")
    search = f"tags.`{tag(name)}` LIKE '%'"
    said = [f"- {line}" for line in warnings(summary)]
    return "\n".join([*lines, "", *said, "", f"Its runs: search for ``{search}``, and group by that tag."])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
