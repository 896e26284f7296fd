"""What the report says of the images: what they are, their statistics, and what the augmentation does to them."""

import numpy as np
import pyarrow as pa

from model.schedules import light_of
from pipelines.augment import Augmentation, component_levels
from pipelines.duplicates import DUPLICATES, summary
from pipelines.quarantine import QUARANTINE
from pipelines.statistics import SIZE_BIN_PX
from workflows.report import figures_data, samples
from workflows.report.album import Album
from workflows.report.finished_run import FinishedRun
from workflows.report.page import Html, Right, code, paragraph, table

CLASSES, PER_CLASS = 12, 8  # of the sheet of samples
EPOCHS_SHOWN = 8
DRAWN = 2.0  # how far, in standard deviations, the lighting of single components is shown
QUARANTINED_SHOWN = 12
DUPLICATES_SHOWN = 12


def data(album: Album) -> list[Html]:
    """Samples, counts, and what was set aside."""
    run, manifest = album.run, album.run.manifest
    labels = samples.spread(manifest, "train", CLASSES)
    chosen = samples.by_class(run.shards, "train", labels, PER_CLASS)
    titles = manifest.class_titles
    rows = {label: [sample.pixels_HWC for sample in found] for label, found in chosen.items()}
    listed = ", ".join(f"{manifest.num_rows(split):,} images in {split}" for split in manifest.splits)
    some = "" if len(labels) == manifest.num_classes else f" {len(labels)} of the {manifest.num_classes:,} classes."
    return [
        paragraph(
            f"{listed}, of {manifest.num_classes:,} classes. Each image was scaled until its shorter side was "
            f"{manifest.size_px} px; its central square was kept and stored as "
            f"{'JPEG' if manifest.encoding == 'jpeg' else 'raw pixels'} in {manifest.format} shards."
        ),
        *(paragraph(f"Of the source: {note}.") for note in manifest.notes),
        album.add(
            "samples",
            figures_data.samples_by_class(rows, titles),
            f"Training images by class, the first of each in stored order (which is shuffled).{some}",
            "A sheet of training images, one class in each row",
        ),
        album.add(
            "classes",
            figures_data.class_histogram({split: manifest.label_counts(split) for split in manifest.splits}, titles),
            "Images of each class.",
            "Number of images by class and split",
        ),
        album.add(
            "sizes",
            figures_data.original_sizes(run.statistics.width_histogram, run.statistics.height_histogram, SIZE_BIN_PX),
            "Widths and heights of the training images as they came from the source.",
            "Histograms of the original widths and heights",
        ),
        *_quarantine(run),
        *_duplicates(run),
    ]


def _quarantine(run: FinishedRun) -> list[Html]:
    """Damaged images, one example of each reason first."""
    damaged = run.quarantine
    if damaged.empty:
        return [paragraph("Every listed image could be read; none was set aside.")]
    ordered = damaged.assign(repeat=damaged.groupby("reason").cumcount()).sort_values(["repeat", "split", "id"])
    rows = [
        (code(row.key), row.split, Right(f"{row.id:,}"), row.reason)
        for row in ordered.head(QUARANTINED_SHOWN).itertuples()
    ]
    left = len(damaged) - len(rows)
    more = f" {left:,} more are in the stage's {QUARANTINE}." if left else ""
    caption = f"Images that were set aside, and why: {len(damaged):,} of those listed.{more}"
    return [table(["image", "split", "id", "reason"], rows, caption)]


def _duplicates(run: FinishedRun) -> list[Html]:
    """Images stored again: those in another split or with another label first."""
    found, titles = run.duplicates, run.manifest.class_titles
    if found.empty:
        return [paragraph("No two stored images have the same bytes.")]
    odd = (found.split != found.first_split).astype(int) + (found.label != found.first_label)
    rows = [
        (code(row.key), row.split, titles[row.label], code(row.first_key), row.first_split, titles[row.first_label])
        for row in found.loc[odd.sort_values(ascending=False, kind="stable").index].head(DUPLICATES_SHOWN).itertuples()
    ]
    left = len(found) - len(rows)
    more = f" {left:,} more are in the stage's {DUPLICATES}." if left else ""
    caption = f"{summary(pa.Table.from_pandas(found, preserve_index=False))}.{more}"
    return [table(["image", "split", "class", "same as", "split", "class"], rows, caption)]


def colours(album: Album) -> list[Html]:
    """Mean image, histograms and principal colours of the training images."""
    stats = album.run.statistics
    net = album.run.net
    used = (
        f"the central {net.input_px} px of it are subtracted from every crop, wherever the crop was cut"
        if net.mean == "image"
        else "its mean over all pixels is subtracted"
    )
    return [
        paragraph(
            f"Exact integer sums over the {stats.num_images:,} training images as they are stored, values 0 to 255: "
            "the same to the last bit however the shards were cut and merged."
        ),
        album.add(
            "mean_image",
            figures_data.mean_image(stats.mean_image_HWC),
            f"The mean image; {used}. On the right, where each channel is brighter or darker than its own mean.",
            "The mean training image and its three channels",
        ),
        album.add(
            "channels",
            figures_data.channel_histogram(stats.channel_histogram),
            f"Values of the three channels. Mean {_triple(stats.channel_mean)}, standard deviation "
            f"{_triple(stats.channel_std)} (red, green, blue). Peaks at 0 and 255 may be cut off.",
            "Histograms of the red, green and blue values",
        ),
        album.add(
            "principal_colours",
            figures_data.principal_colours(stats.channel_mean, stats.eigenvalues, stats.eigenvectors, stats.covariance),
            "Principal components of all RGB values. In photographs the first is brightness, the second runs from warm "
            "to cold and the third from green to magenta; the lighting below moves images along them.",
            "RGB covariance, eigenvectors, and colours along each component",
        ),
    ]


def _triple(values: np.ndarray) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def augmentation(album: Album) -> list[Html]:
    """A few images as the network meets them from epoch to epoch, and what the lighting can do."""
    run, spec, crop_px = album.run, album.run.config.loader, album.run.net.input_px
    images = samples.first(run.shards, run.manifest, "train", 4)
    rows = [[image.pixels_HWC, *seen] for image, seen in zip(images, as_trained(run, images), strict=True)]
    offsets = spec.offsets or run.manifest.size_px - crop_px + 1
    parts = [
        paragraph(
            f"What the network sees of an image changes with every epoch: one of {offsets} × {offsets} crops of "
            f"{crop_px} px{', mirrored half of the time' if spec.flip else ''}"
            f"{'' if spec.lighting == 'off' else ', its light changed'}. These are the very parameters of the "
            "training, which are a function of the seed, the epoch and the image alone."
        ),
        album.add(
            "augmentation",
            figures_data.titled_rows(rows, ["stored", *(f"epoch {epoch + 1}" for epoch in range(EPOCHS_SHOWN))]),
            f"The first training images, stored ({run.manifest.size_px} px) and as the network sees them ({crop_px}).",
            "Images beside their random crops",
        ),
    ]
    return parts if spec.lighting == "off" else [*parts, _lighting(album, images)]


def as_trained(run: FinishedRun, images: list[samples.Sample]) -> list[list[np.ndarray]]:
    """Each image with the crop, flip and lighting of the first epochs."""
    stats, ids, crop_px = run.statistics, np.array([image.id for image in images]), run.net.input_px
    drawn = Augmentation(run.config.loader, run.manifest.size_px, crop_px, stats.eigenvalues, stats.eigenvectors)
    by_epoch = [drawn.draw(epoch, ids, ids) for epoch in range(EPOCHS_SHOWN)]
    return [
        [
            samples.augmented(image.pixels_HWC, crop_px, p.y_B[i], p.x_B[i], p.mirror_B[i], p.shift_B3[i])
            for p in by_epoch
        ]
        for i, image in enumerate(images)
    ]


def _lighting(album: Album, images: list[samples.Sample]) -> Html:
    run, spec = album.run, album.run.config.loader
    levels = component_levels(spec.lighting, spec.lighting_coeff, run.statistics.eigenvalues)
    draws = [(component, sign * DRAWN) for component in range(3) for sign in (-1, 1)]
    titles = ["stored", *(f"component {component + 1}: {z:+.0f}".replace("-", "−") for component, z in draws)]
    rows = [[image.pixels_HWC, *(lit(run, image, *draw) for draw in draws)] for image in images]
    how = (
        "of the components’ standard deviations, as in the code of 2012"
        if spec.lighting == "sigma"
        else "of the eigenvalues on a scale of 0 to 1, as the paper’s formula says"
    )
    changes = [f"{value:g} from epoch {start + 1} on" for start, value in light_of(run.config.train)]
    end = f" Its coefficient is {', '.join(changes)}." if changes else ""
    caption = (
        f"What the lighting can do. One colour is added to the whole image: three normal draws along the three "
        f"components, of {_triple(levels)} grey levels ({spec.lighting_coeff:g} {how}). Draws of ±{DRAWN:.0f} are "
        f"shown, beyond which one in twenty lies.{end}"
    )
    alt = "Images beside copies lit along each principal component"
    return album.add("lighting", figures_data.titled_rows(rows, titles), caption, alt)


def lit(run: FinishedRun, image: samples.Sample, component: int, z: float) -> np.ndarray:
    """The whole image with a draw of `z` along one component."""
    statistics = run.statistics
    spec = run.config.loader
    levels = component_levels(spec.lighting, spec.lighting_coeff, statistics.eigenvalues)
    shift_3 = z * levels[component] * statistics.eigenvectors[:, component]
    return samples.augmented(image.pixels_HWC, len(image.pixels_HWC), 0, 0, False, shift_3)
