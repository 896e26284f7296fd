"""Top-1 and top-5 error as mergeable sums: any batches, any number of ranks, the same rates."""

from dataclasses import dataclass

import torch
from torch import Tensor

TOPS = (1, 5)


@dataclass
class TopK:
    """Images classified rightly among the top 1 and the top 5, as sums; `TopK()` is the empty one."""

    right_at_1: float = 0.0
    right_at_5: float = 0.0
    num_images: int = 0

    def update(self, scores_BK: Tensor, labels_B: Tensor) -> None:
        right_at_1, right_at_5 = credits(scores_BK, labels_B).sum(0).tolist()
        self.right_at_1 += right_at_1
        self.right_at_5 += right_at_5
        self.num_images += len(labels_B)

    def merge(self, other: "TopK") -> "TopK":
        return TopK(
            self.right_at_1 + other.right_at_1,
            self.right_at_5 + other.right_at_5,
            self.num_images + other.num_images,
        )

    @property
    def top1_error(self) -> float:
        return 1 - self.right_at_1 / self.num_images

    @property
    def top5_error(self) -> float:
        return 1 - self.right_at_5 / self.num_images


def credits(scores_BK: Tensor, labels_B: Tensor) -> Tensor:
    """(B, 2): 1 where the label is among the top 1 (top 5); a label tied for the last places gets their share of them.

    A score that is no number is right nowhere.
    """
    label_score_B1 = scores_BK.gather(1, labels_B[:, None])
    higher_B1 = (scores_BK > label_score_B1).sum(1, keepdim=True)
    tied_B1 = (scores_BK == label_score_B1).sum(1, keepdim=True)
    places_B2 = torch.cat([top - higher_B1 for top in TOPS], 1)  # nothing is copied to a GPU, which would wait for it
    share = places_B2.clamp(min=0).double() / tied_B1.clamp(min=1)
    return share.clamp(max=1) * (tied_B1 > 0)
