"""Report: the run as one HTML page with its figures, all of them artifacts of the run."""

import time

from workflows.engine.outputs import places
from workflows.engine.stage import Context
from workflows.report import sections_data, sections_errors, sections_neighbours, sections_net
from workflows.report.album import Album
from workflows.report.finished_run import FinishedRun, optional_too
from workflows.report.fonts import missing
from workflows.report.page import Html, element, page, percent, tiles

REPORT = "report.html"
SECTIONS = {
    "Data": sections_data.data,
    "Colours": sections_data.colours,
    "Augmentation": sections_data.augmentation,
    "Network": sections_net.network,
    "Training": sections_net.training,
    "First layer": sections_net.kernels,
    "Errors": sections_errors.errors,
    "Neighbours": sections_neighbours.neighbours,
    "Provenance": sections_errors.provenance,
}


def run(context: Context) -> dict:
    """Writes `report.html` and `figures/*.png`."""
    began = time.perf_counter()
    outputs = optional_too(places(context.config, context.root), context.inputs)
    finished = FinishedRun(context.root, context.config, outputs)
    album = Album(finished, context.folder.child("figures"))
    for line in missing(finished.manifest.class_titles):
        context.console.say_once(f"  warning: {line}")
    sections = {}
    with context.console.progress("report", len(SECTIONS), "sections") as progress:
        for done, (name, write) in enumerate(SECTIONS.items(), 1):
            sections[name] = write(album)
            progress.update(done)
    html = page(title(finished), lead(finished), sections).encode()
    context.folder.write(REPORT, html)
    figures = [f"figures/{entry.name}" for entry in album.folder.files()]
    context.log_files(REPORT)
    context.log_files(*figures, to="figures")
    return {
        "result": f"{REPORT}, {len(html) / 1e6:.1f} MB, {len(figures)} figures",
        "metrics": {"figures": len(figures), "bytes": len(html), "report_s": time.perf_counter() - began},
        "units": 1,
        "files": (REPORT,),
        "other_files": tuple(figures),
    }


def title(finished: FinishedRun) -> str:
    """The network, and the recipe that it was trained by."""
    kind = finished.net.kind
    return f"{'AlexNet' if kind == 'alexnet' else kind.removeprefix('module:')}, recipe {finished.config.recipe}"


def lead(finished: FinishedRun) -> list[Html]:
    """The page's head: what was trained on what, when, from which code, and the errors."""
    manifest, found, record = finished.manifest, finished.evaluation, finished.record("evaluate")
    columns = "two-column " if finished.net.columns == 2 else "one-column " if finished.net.kind == "alexnet" else ""
    said = (
        f"A {columns}network trained on "
        f"{manifest.num_rows('train'):,} images of {manifest.num_classes:,} classes and tested on "
        f"{found['num_images']:,} of the split “{found['split']}”."
    )
    facts = f"recipe {finished.config.recipe} · data set {manifest.source_kind} · {record['finished'][:10]} · commit "
    return [
        element("p", said, class_="lead"),
        tiles(
            (f"top-{k} error, {crops}", percent(error))
            for crops, errors in finished.errors.items()
            for k, error in zip((1, 5), errors, strict=True)
        ),
        element("p", facts, element("code", record["commit"]), class_="facts"),
    ]
