"""What the report says of neighbours (the paper's Figure 4, right): which images the network finds alike."""

import json

import numpy as np

from pipelines.alike import SHOWN, percent
from pipelines.codes import SUMMARY as CODES
from pipelines.names import TRAIN
from pipelines.neighbours import AT, Share
from workflows.report import figures_results, samples
from workflows.report.album import Album
from workflows.report.figures import named
from workflows.report.finished_run import FinishedRun
from workflows.report.likeness import Likeness, likeness
from workflows.report.page import Html, Right, code, paragraph, table

IMAGES_SHOWN = 5


def neighbours(album: Album) -> list[Html]:
    """Five test images with their six nearest training images, and how many are of the right class."""
    try:
        found = likeness(album.run)
    except ValueError as error:
        return [paragraph(f"Not looked for: {error}.")]
    if found is None:
        way_out = code("alexnet neighbours"), ", and then ", code("alexnet report --redo report")
        return [paragraph("Not looked for yet, which takes a while for this many images: ", *way_out, " draws them.")]
    return [_pictures(album, found), _shares(album.run, found), _in_pixels(found)]


def _pictures(album: Album, found: Likeness) -> Html:
    run, titles = album.run, album.run.manifest.class_titles
    _, first = np.unique(found.labels_Q, return_index=True)
    shown = np.sort(first)[:IMAGES_SHOWN]
    ids_QK, labels_QK = (of[shown, :SHOWN] for of in (found.neighbour_ids_QK, found.neighbour_labels_QK))
    queries = samples.with_ids(run.shards, run.manifest, found.split, found.ids_Q[shown].tolist())
    near = {s.id: s for s in samples.with_ids(run.shards, run.manifest, TRAIN, sorted({*ids_QK.ravel().tolist()}))}
    figure = figures_results.neighbours(
        [query.pixels_HWC for query in queries],
        [_name(titles, query.label) for query in queries],
        [[near[id].pixels_HWC for id in ids] for ids in ids_QK.tolist()],
        [[_name(titles, label) for label in labels] for labels in labels_QK.tolist()],
        (labels_QK == found.labels_Q[shown, None]).tolist(),
    )
    caption = (
        f"Left, images of the split “{found.split}”, the first of each of {len(queries)} classes in stored order; each "
        f"with the {labels_QK.shape[1]} training images nearest to it by what the last layer reads of the centre crop "
        "(the paper’s Figure 4, right). Names of other classes are red."
    )
    return album.add("neighbours", figure, caption, "Test images, each beside its nearest training images")


def _name(titles: tuple[str, ...], label: int) -> str:
    return named(titles, label, 16) if label >= 0 else "no label"


def _shares(run: FinishedRun, found: Likeness) -> Html:
    shares, pixels = found.card["right_class"], found.card["pixels"]
    size = f"{pixels['side_px']} px" if pixels["side_px"] == pixels["crop_px"] else f"reduced to {pixels['side_px']} px"
    of = {
        f"features, of {len(found.ids_Q):,} images": shares["features"],
        f"pixels (centre crop, {size}), of {pixels['queries']:,}": shares["pixels"],
        **by_codes(run),
        "chance": dict.fromkeys(map(str, AT), shares["chance"]),
    }
    rows = [(name, *(_share(known.get(str(k))) for k in AT)) for name, known in of.items()]
    caption = "Share of the nearest training images that are of the image’s class, with its standard error over images."
    return table(["nearest by", *(f"the first {k}" if k > 1 else "the first" for k in AT)], rows, caption)


def by_codes(run: FinishedRun) -> dict[str, dict[str, dict[str, float]]]:
    """Shares by k of each code that `alexnet codes` made, under its name; none where it did not."""
    if "codes" not in run.outputs:
        return {}
    made = json.loads(run.output("codes").folder.read(CODES))["codes"]
    return {f"{one['bits']} bits of {one['of']}, of {one['queries']:,}": one["right_class"] for one in made}


def _share(known: dict[str, float] | None) -> Right:
    return Right(percent(Share(**known)) if known else "–")


def _in_pixels(found: Likeness) -> Html:
    """That what is near in features is far in pixels."""
    rms = {name: f"{of['mean']:.1f}" for name, of in found.card["pixels"]["rms_levels"].items()}
    return paragraph(
        f"In pixels the {SHOWN} neighbours by features are {rms['feature_neighbours']} levels of 255 from their image "
        f"(root mean square), those by pixels {rms['pixel_neighbours']}, and training images at random "
        f"{rms['random_images']}."
    )
