"""What the paper counts, computed from the network's arithmetic: nothing is trained for it, and nothing typed in."""

from model.networks import exchanged_bytes, layer_table, num_params
from model.shapes import ImportedLayer
from model.specs import AlexNetSpec
from workflows import recipes

NET = AlexNetSpec()  # the paper's: 224 px, 1,000 classes
FLIPS = 2


def parameters() -> float:
    return num_params(NET)


def neurons() -> float:
    """Outputs of all layers, before pooling."""
    return sum(layer.neurons for layer in layer_table(NET) if not isinstance(layer, ImportedLayer))


def views() -> float:
    """Different crops of a stored square, with their mirror images."""
    offsets = recipes.as_run().ingest.size - NET.input_px + 1
    return FLIPS * offsets**2


def exchanged_bytes_an_image() -> float:
    """Between the columns, forward and backward, in float32."""
    return exchanged_bytes(NET)
