"""What the report says of the network: its layers by column, its training, and the kernels that it learned."""

from collections.abc import Sequence

import numpy as np

from model.networks import exchanged_bytes, num_macs, num_params
from model.shapes import ImportedLayer, Layer
from model.specs import SCHEDULES, TrainSpec
from workflows.report import figures_net, figures_results
from workflows.report.album import Album
from workflows.report.page import Html, Right, paragraph, percent, table


def network(album: Album) -> list[Html]:
    """The layers by column: the paper's Figure 2 as a table."""
    run, net = album.run, album.run.net
    if imported := [layer for layer in run.layers if isinstance(layer, ImportedLayer)]:
        return [_imported(imported, net.kind)]
    total = [*[""] * 5, num_params(net), sum(layer.neurons for layer in run.layers), num_macs(net)]
    exchanged = sum(layer.exchanged_bytes for layer in run.layers)
    heading = ["layer", "reads", "input", "kernels", "output", "parameters", "neurons", "multiply-adds", "exchanged"]
    two = net.columns == 2
    lead = (
        "Two columns stand side by side, each with half of the kernels of every layer. They see each other's maps only "
        f"where the table says so; one training image moves {exchanged_bytes(net):,} bytes between them, forward and "
        "backward together."
        if two
        else "One column: nothing is exchanged."
    )
    return [
        paragraph(lead),
        table(
            heading,
            [
                *(_layer_row(layer) for layer in run.layers if isinstance(layer, Layer)),
                ["total", *total[1:], _kib(exchanged)],
            ],
            "The network, layer by layer. Outputs are before pooling; counts are of all columns together, “2 ×” marks "
            "what is split between two. Multiply-adds and exchanged bytes are of one image, forward."
            if two
            else "The network, layer by layer. Outputs are before pooling; multiply-adds are of one image, forward.",
            has_total=True,
        ),
    ]


def _imported(layers: Sequence[ImportedLayer], kind: str) -> Html:
    """The layers of a network of somebody else's."""
    rows = [[layer.name, layer.kind, " × ".join(map(str, layer.output)), layer.params, layer.macs] for layer in layers]
    total = ["total", "", "", sum(layer.params for layer in layers), sum(layer.macs for layer in layers)]
    return table(
        ["layer", "kind", "output", "parameters", "multiply-adds"],
        [*rows, total],
        f"The layers with parameters of the network that {kind.partition(':')[2]} makes. Outputs and multiply-adds are "
        "of one image, forward.",
        has_total=True,
    )


def _layer_row(layer: Layer) -> list:
    reads = "image" if layer.name == "conv1" else "both columns" if layer.shared else "its own column"
    reads = reads if layer.columns == 2 or layer.name == "conv1" else "all"
    reads += ", places apart" if layer.local else ""
    maps = f"{layer.out:,}" if layer.columns == 1 else f"{layer.columns} × {-(-layer.out // layer.columns):,}"
    if not layer.kernel:
        shapes = [f"{layer.sees:,}", "", maps]
    else:
        stride = f" / {layer.stride}" if layer.stride > 1 else ""
        shapes = [
            f"{layer.in_px} × {layer.in_px} × {layer.sees}",
            f"{layer.kernel} × {layer.kernel}{stride}",
            f"{layer.out_px} × {layer.out_px} × {f'({maps})' if layer.columns > 1 else maps}",
        ]
    unbroken = [shape.replace(" ", "\N{NO-BREAK SPACE}") for shape in shapes]
    return [layer.name, reads, *unbroken, layer.params, layer.neurons, layer.macs, _kib(layer.exchanged_bytes)]


def _kib(num_bytes: int) -> Right:
    return Right(f"{num_bytes / 1024:,.1f} KiB" if num_bytes else "–")


def _schedule(spec: TrainSpec) -> str:
    return f"{spec.schedule} from {spec.lr:g} on" if spec.schedule in SCHEDULES else f"the log “{spec.schedule}”"


def training(album: Album) -> list[Html]:
    """The curves, and what they were made with."""
    run, spec = album.run, album.run.config.train
    epochs, found = run.epochs, ""
    dropout = " with dropout" if getattr(run.net, "dropout", False) else ""
    if "val_top1_error" in epochs:
        best = epochs.loc[epochs["val_top1_error"].idxmin()]
        error = percent(best["val_top1_error"])
        found = f" The validation error was lowest after epoch {best['epoch']:.0f}: {error} on the centre crops."
    return [
        paragraph(
            f"{spec.epochs:g} epochs in batches of {spec.batch_size}, momentum {spec.momentum:g}, weight decay "
            f"{spec.weight_decay:g}{f' ({spec.decays})' if spec.decays else ''}, learning rate by {_schedule(spec)}, "
            f"seed {spec.seed}.{found}"
        ),
        album.add(
            "training",
            figures_results.training_curves(run.steps, epochs, run.phases),
            f"Training error is measured on augmented images{dropout}, while the network learns, so that it may lie "
            "above the validation error, which is measured after each epoch on centre crops. Bold lines are running "
            "means over a fiftieth of the run.",
            "Loss, errors, learning rate and images per second over the epochs",
        ),
    ]


def kernels(album: Album) -> list[Html]:
    """conv1's kernels by column, and how much of each is colour."""
    columns = album.run.conv1_columns
    if not columns:
        return [paragraph("No layer of this network reads the colours of pixels.")]
    side = columns[0].shape[-1]
    medians = [float(np.median(figures_net.chroma_share(kernels))) for kernels in columns]
    median = "medians" if len(columns) == 2 else "median"
    shares = " and ".join(map(percent, medians))
    more = (
        " The paper's network specialised in every run: one column became mostly blind to colour, the other mostly "
        "specific to it. It did so after 90 epochs of 1.2 million photographs; a small network or a short run may not."
        if len(columns) == 2
        else ""
    )
    return [
        album.add(
            "kernels",
            figures_net.conv1_kernels(columns),
            f"The {sum(map(len, columns))} kernels of the first layer, {side} × {side} × 3"
            f"{', column 1 on top, column 2 below' if len(columns) == 2 else ''} (the paper’s Figure 3). "
            "Each is brought to mean 0 and variance 1; then one scale for all, from the least value to the greatest.",
            "The learned kernels of the first convolution",
        ),
        album.add(
            "colour_share",
            figures_net.chroma_by_column(columns),
            f"How much of each kernel’s energy is colour rather than grey; {median} {shares}.{more}",
            "Share of colour in each kernel, by column",
        ),
    ]
