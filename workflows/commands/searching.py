"""Stored images that a trained network finds most like image files of the user's: the nearest by their features."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.faiss_index import INDEX, nearest_by, read_index
from pipelines.features import FeatureRows, Features
from pipelines.manifest import Manifest
from pipelines.names import TRAIN
from pipelines.neighbour_rows import neighbours_among
from pipelines.neighbours import Nearest
from pipelines.storage import Folder
from workflows.commands.classify import Read, load_model, read_images, views_of_images
from workflows.config import RunConfig, UsageError, has_faiss
from workflows.engine.outputs import Output, Places
from workflows.folders import MODELS

if TYPE_CHECKING:
    import faiss
    import numpy as np

    from model.export import Exported
    from workflows.report.samples import Sample


ROWS_SHOWN = 20  # in the picture


class Neighbour(NamedTuple):
    """A stored image that is near."""

    key: str
    label: int
    title: str
    distance: float
    sample: "Sample"


class Coded(NamedTuple):
    """Where codes are, and of how many bits they shall be."""

    folder: Folder
    bits: int


class Answer(NamedTuple):
    """What is near an image, the nearest first; or why it could not be looked at."""

    path: str
    pixels_HWC: "np.ndarray | None"
    neighbours: tuple[Neighbour, ...]
    problem: str = ""


def search(
    taken: Output,
    where: Places,
    paths: Sequence[str],
    config: RunConfig,
    split: str,
    top: int,
    coded: "Coded | None" = None,
) -> list[Answer]:
    """The stored images of a split nearest to each image, by features that were taken; in the order of the paths.

    Args:
        paths: Image files, and folders of them.
        coded: Codes of these features, by which images are looked for then.
        config: Images of more pixels than it allows are not decoded; a network of the user's own is made as it says.

    Raises:
        UsageError: No features of the split, or the network that made them is gone.
    """
    features, record = Features.load(taken.folder), taken.require_record()
    try:
        features.of_split(split)
    except ValueError as error:
        raise UsageError(f"--split {split}: {error}") from error
    shards = where.output("ingest", record["inputs"]["ingest"]).folder
    folder = where.output("train", record["inputs"]["train"]).folder.child(MODELS[features.card["weights"]])
    _require_same_network(folder, features)
    with folder.as_local() as local:
        exported, size_px = load_model(local, config.net.kind)
    images = list(read_images(paths, size_px, config.ingest.max_pixels))
    readable = [image for image in images if not image.problem]
    if not readable:
        return [Answer(image.path, None, (), image.problem) for image in images]
    queries = _features(exported, readable)
    if coded:
        found = _nearest_by_codes(queries.features_NU, coded, split, top)
    elif index := _index_of(taken, where, split):
        found = nearest_by(index, queries.features_NU, top)
    else:
        found = neighbours_among(queries, features.rows(split), top).nearest
    answers = iter(_answers(found, readable, shards, split))
    return [Answer(image.path, None, (), image.problem) if image.problem else next(answers) for image in images]


def _index_of(taken: Output, where: Places, split: str) -> "faiss.Index | None":
    """The newest index of these features, where there is one and it can be read here."""
    if split != TRAIN or not has_faiss():
        return None
    of_these = (made for made, record in where.finished("neighbours") if record["inputs"]["features"] == taken.key)
    folder = next((made.folder for made in of_these if made.folder.size(INDEX) is not None), None)
    if folder is None:
        return None
    try:
        return read_index(folder)
    except RuntimeError as error:  # which is what FAISS raises
        way_out = "`alexnet neighbours --redo neighbours` makes it again"
        raise UsageError(f"{folder.where(INDEX)} is no index that FAISS can read: {way_out}") from error


def _require_same_network(folder: Folder, features: Features) -> None:
    wanted = features.card["weights_sha256"]
    if folder.size("model.safetensors") is None or folder.sha256("model.safetensors") != wanted:
        raise UsageError(
            f"{folder.where()} is not the network whose features {features.folder.where()} holds: "
            "run `alexnet features` for this one"
        )


def _features(exported: "Exported", images: Sequence[Read]) -> FeatureRows:
    """Of the centre crops, a batch at a time."""
    import numpy as np

    from model.step import features

    found = []
    for start in range(0, len(images), 64):
        crops_BVCHW = views_of_images(images[start : start + 64], exported.net.spec.input_px, "one")
        found.append(features(exported.net, crops_BVCHW[:, 0]).numpy())
    ids_N = np.arange(len(images))
    return FeatureRows(ids_N, [image.path for image in images], np.full(len(images), -1), np.concatenate(found))


def _nearest_by_codes(features_QU: "np.ndarray", coded: Coded, split: str, top: int) -> Nearest:
    """UsageError where there are no codes of so many bits, or of the split."""
    import torch
    from safetensors.torch import load

    from model.autoencoder import Autoencoder
    from pipelines.codes import nearest_codes, packed, read_codes
    from workflows.stages.codes import WEIGHTS, Coder

    coder = Coder("features", coded.bits)
    if coded.folder.size(coder.codes) is None:
        raise UsageError(f"--codes {coded.bits}: {coded.folder.where()} holds no codes of so many bits")
    rows = read_codes(coded.folder, coder.codes, split)
    if not len(rows.ids_N):
        raise UsageError(f"--split {split}: {coded.folder.where(coder.codes)} holds no codes of it")
    weights = load(coded.folder.read(f"{coder.name}/{WEIGHTS}"))
    net = Autoencoder(len(weights["mean_U"]), coded.bits)
    net.load_state_dict(weights)
    return nearest_codes(packed(net.bits(torch.from_numpy(features_QU)).numpy()), rows, top)


def _answers(found: Nearest, images: Sequence[Read], shards: Folder, split: str) -> list[Answer]:
    from workflows.report import samples

    manifest = Manifest.load(shards)
    wanted = sorted({*found.ids_QK.ravel().tolist()} - {-1})
    stored = {sample.id: sample for sample in samples.with_ids(shards, manifest, split, wanted)}
    answers = []
    for image, ids, distances in zip(images, *(part.tolist() for part in found), strict=True):
        near = tuple(
            Neighbour(sample.key, sample.label, _title(manifest, sample.label), distance, sample)
            for sample, distance in zip(map(stored.get, ids), distances, strict=True)
            if sample  # an index may find fewer
        )
        answers.append(Answer(image.path, image.pixels_HWC, near))
    return answers


def _title(manifest: Manifest, label: int) -> str:
    return manifest.class_titles[label] if label >= 0 else "no label"


def as_json(answer: Answer) -> dict[str, Any]:
    """For programs."""
    if answer.problem:
        return {"image": answer.path, "problem": answer.problem}
    names = ("key", "label", "title", "distance")
    return {
        "image": answer.path,
        "neighbours": [{name: getattr(one, name) for name in names} for one in answer.neighbours],
    }


def draw(answers: Sequence[Answer], path: Path) -> Path:
    """Writes a picture with a row for each image, of many the first: itself and what is near."""
    from workflows.report import figures_results
    from workflows.report.figures import png, written

    answers = answers[:ROWS_SHOWN]
    figure = figures_results.neighbours(
        [answer.pixels_HWC for answer in answers if answer.pixels_HWC is not None],
        [written(Path(answer.path).name, "", 20) for answer in answers],
        [[one.sample.pixels_HWC for one in answer.neighbours] for answer in answers],
        [[written(one.title, f"class {one.label}", 18) for one in answer.neighbours] for answer in answers],
    )
    path.write_bytes(png(figure))
    return path
