"""Predictions of a trained network for image files, prepared as the training images were."""

from collections.abc import Iterator
from pathlib import Path

from workflows.config import UsageError

TOP = 5


def predictions(folder: Path, images: list[str]) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """For each file the likeliest classes and their probabilities, averaged over ten crops.

    Args:
        folder: An exported model.

    Raises:
        UsageError: No model there, or a file that is no image.
    """
    from model.export import load_exported
    from model.step import predict
    from pipelines.evaluation import ten_views
    from pipelines.images import DamagedImage, to_square
    from pipelines.specs import IngestSpec

    try:
        exported = load_exported(folder)
    except ValueError as error:
        raise UsageError(str(error)) from error
    import torch

    size_px = exported.provenance.get("size_px")
    if not size_px:
        raise UsageError(f"{folder}: its card does not say of what size its images were (provenance.size_px)")
    for path in images:
        try:
            square = to_square(Path(path).read_bytes(), size_px, IngestSpec().max_pixels)
        except (OSError, DamagedImage) as error:
            raise UsageError(f"{path}: {error}") from error
        pixels_BCHW = torch.from_numpy(square.pixels_HWC).permute(2, 0, 1)[None].float()
        best = predict(exported.net, ten_views(pixels_BCHW, exported.net.spec.input_px))[0].topk(
            min(TOP, len(exported.class_names))
        )
        titles = [exported.class_titles[i] for i in best.indices.tolist()]
        yield path, list(zip(titles, best.values.tolist(), strict=True))
