"""A small network that sees an image as a grid of features, and ways to pool that grid."""

from __future__ import annotations

import math

import torch
from torch import nn


class Mean(nn.Module):
    """(B, C, H, W) → (B, C): the mean of all places."""

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return grid.mean(dim=(2, 3))


class Max(nn.Module):
    """(B, C, H, W) → (B, C): the largest of all places."""

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return grid.amax(dim=(2, 3))


class LogSumExp(nn.Module):
    """(B, C, H, W) → (B, C): log of the mean of exp, between mean and maximum, by ``sharpness``."""

    def __init__(self, sharpness: float = 5.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Pool."""
        flat = grid.flatten(2) * self.sharpness
        return (torch.logsumexp(flat, 2) - math.log(flat.shape[2])) / self.sharpness


class Attention(nn.Module):
    """(B, C, H, W) → (B, C): a mean by weights that each place is given from its own features.

    The gated form of Ilse et al. 2018, equation 9.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.content = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Conv2d(channels, channels, 1)
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Pool."""
        score = self.score(torch.tanh(self.content(grid)) * torch.sigmoid(self.gate(grid)))
        weights = torch.softmax(score.flatten(2), dim=2)
        return (grid.flatten(2) * weights).sum(dim=2)


POOLINGS = ("mean", "max", "logsumexp", "attention")


def build_network(channels: int, object_px: int, pooling: str, width: int) -> nn.Sequential:
    """Images (B, channels, H, W) → logits (B,).

    A feature sees 13 px where objects have 8, and twice that for each doubling of the object: the
    receptive field is fitted to what is looked for. ``width`` is the number of features.
    """
    halvings = max(round(math.log2(object_px / 4)), 1)
    layers = [*_block(channels, width // 2, kernel=5, stride=2)]
    for _ in range(halvings - 1):
        layers += _block(width // 2, width // 2, kernel=3, stride=2)
    layers += _block(width // 2, width, kernel=3, stride=1)
    layers += _block(width, width, kernel=3, stride=1)
    pool = {"mean": Mean, "max": Max, "logsumexp": LogSumExp}
    layers.append(Attention(width) if pooling == "attention" else pool[pooling]())
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
