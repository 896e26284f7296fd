"""The same network as one would first write it in PyTorch: grouped convolutions, nn.LocalResponseNorm, torch.optim.SGD.

Same layers, sizes and update as `model`, so that the two compare; only the writing differs. LocalResponseNorm crosses
the border of the columns here, which costs no more and no less.
"""

import torch
from torch import Tensor, nn


def plain_alexnet(num_classes: int = 1000) -> nn.Sequential:
    def norm() -> nn.LocalResponseNorm:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, num_classes),
    )  # fmt: skip


class PlainTrainer:
    """A training step as in any tutorial."""

    def __init__(self, device: str = "cpu"):
        self.net = plain_alexnet().to(device)
        self.mean = torch.full((3, 224, 224), 120.0, device=device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
        self.loss = nn.CrossEntropyLoss()

    def train_step(self, images_BCHW: Tensor, labels_B: Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(self.net(images_BCHW - self.mean), labels_B).backward()
        self.optimizer.step()
