"""A training step's gradients, predictions over one view or several, features, the evaluation of batches. No I/O.

Letters: B batch, V views, C channels, H, W, K classes.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.metrics import TopK, credits
from model.network import Network


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 for convolutions and matrix products where asked; normalisation and softmax see to float32 themselves."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def resolved(precision: str, device: torch.device) -> str:
    """What a precision is on a device: `auto` is bf16 on GPUs that have it in hardware, else float32."""
    if precision != "auto":
        return precision
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if has_bf16 else "float32"


def set_arithmetic(device: torch.device, precision: str) -> None:
    """From now on a GPU computes the same numbers every time, in TF32 unless float32 is asked for.

    TF32 is also for what autocast leaves. Without `deterministic` cuDNN may add gradients up in any order, and with
    `benchmark` it takes whatever algorithm was the fastest that day.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def backward(
    net: Network,
    images_BCHW: Tensor,
    labels_B: Tensor,
    shift_B3: Tensor | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
) -> Tensor:
    """Leaves in `.grad` these images' part of the mean gradient of a global batch (by default these images alone).

    Returns the sums over these images: loss, images classified wrongly, images (3 values, on the network's device).
    """
    with autocast(images_BCHW.device, precision):
        logits_BK = net(images_BCHW, shift_B3)
    logits_BK = logits_BK if logits_BK.dtype == torch.float64 else logits_BK.float()
    loss = F.cross_entropy(logits_BK, labels_B, reduction="sum")
    if loss.requires_grad:  # else all layers are frozen
        (loss / (batch_size or len(labels_B))).backward()
    with torch.no_grad():
        wrong = len(labels_B) - credits(logits_BK, labels_B)[:, 0].sum()
        images = torch.full_like(wrong, len(labels_B))
        return torch.stack([loss.detach().to(wrong.dtype), wrong, images])


def predict(net: Network, images: Tensor, precision: str = "float32") -> Tensor:
    """Probabilities (B, K) of images B,C,H,W, or of views B,V,C,H,W, over which it averages; in test mode."""
    return over_views(predict_views(net, images, precision))


def over_views(probabilities_BVK: Tensor) -> Tensor:
    """The average of the views' probabilities, as the paper takes it over its ten."""
    return probabilities_BVK.mean(1)


@torch.no_grad()
def features(net: Network, images_BCHW: Tensor, precision: str = "float32") -> Tensor:
    """What the last layer reads (B, U), float32, of images on the network's device; in test mode."""
    was_training = net.training
    net.eval()
    set_arithmetic(images_BCHW.device, precision)
    with autocast(images_BCHW.device, precision):
        features_BU = net.features(images_BCHW)
    net.train(was_training)
    return features_BU.float()


@torch.no_grad()
def predict_views(net: Network, images: Tensor, precision: str = "float32") -> Tensor:
    """Probabilities (B, V, K) of each view, in test mode; images B,C,H,W have one."""
    views = images if images.dim() == 5 else images[:, None]
    was_training = net.training
    net.eval()
    with autocast(views.device, precision):
        logits = net(views.flatten(0, 1))
    net.train(was_training)
    return logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32)).unflatten(0, views.shape[:2])


def predictions(
    nets: Sequence[Network], batches: Iterable[tuple], precision: str = "float32"
) -> Iterator[tuple[list[Tensor], Tensor, list]]:
    """Of each batch of images (or views), labels and whatever else: each network's probabilities (B, V, K), and these.

    The networks are on one device.
    """
    device = nets[0].mean.device
    set_arithmetic(device, precision)
    for images, labels_B, *rest in batches:
        images = images.to(device, non_blocking=True)
        yield [predict_views(net, images, precision) for net in nets], labels_B.to(device), rest


def evaluate(net: Network, batches: Iterable[tuple], precision: str = "float32") -> TopK:
    """Errors over batches of images (or of several views each) and labels; further elements of a batch are ignored."""
    top = TopK()
    for (probabilities_BVK,), labels_B, _ in predictions([net], batches, precision):
        top.update(over_views(probabilities_BVK), labels_B)
    return top
