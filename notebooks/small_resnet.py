"""A small residual network (He, Zhang, Ren and Sun 2015), as anybody writes one: it imports nothing of this project."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, maps_in: int, maps: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(maps_in, maps, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(maps)
        self.around = nn.Conv2d(maps_in, maps, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(inner + self.around(x))


class SmallResNet(nn.Module):
    """Three blocks on maps of a quarter of the image's side, then their means."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.Sequential(Block(16, 16, stride=1), Block(16, 32, stride=2), Block(32, 64, stride=2))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.blocks(self.pool(torch.relu(self.norm(self.conv(pixels)))))
        return self.fc(maps.mean(dim=(2, 3)))


def net(spec) -> nn.Module:
    """For as many classes as the data set has."""
    return SmallResNet(spec.num_classes)
