"""A small strided CNN on the whole grid (Tellez 2020): few convolutions, pooled over the slide.

What differs from theirs: a layer on each place comes first, and the convolutions are separable
(each channel by itself, then across channels), which learns rare tissue from a hundred slides where
full ones learn the slides by heart. Each place is normalised by itself (layer norm over channels)
instead of by batch norm, since a batch holds few slides and much padding. Mean and maximum are
pooled together: a mean alone drowns rare tissue, a maximum alone does not count. Off tissue every
layer is zero, so that what surrounds a slide changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchknn.wholeslide.models.tissue import (
    Standardised,
    gathered,
    max_of_slides,
    mean_of_slides,
)

_SLOPE = 0.2
# Left, right, top, bottom. Two at the end, so that the last place is seen as often as if there were
# more behind it.
_EDGES = (1, 2, 1, 2)


class StridedCNN(nn.Module):
    """Grids (B, D, H, W) → outputs (B, O), through ``depth`` convolutions 3×3 of stride 2."""

    def __init__(
        self, dim: int, outputs: int, hidden: int = 64, depth: int = 3, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.input = Standardised(dim)
        self.places = nn.Conv2d(dim, hidden, 1)
        self.convolutions = nn.ModuleList(_separable(hidden) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids, zero where ``mask`` (B, H, W) is false → (B, O)."""
        values = self.places(self.input.grids(features, mask))
        values = functional.leaky_relu(values, _SLOPE) * mask[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            mask = _halved(mask)
            normed = norm(convolution(functional.pad(values, _EDGES)).movedim(1, 3)).movedim(3, 1)
            values = functional.leaky_relu(normed, _SLOPE) * mask[:, None]
        vectors, owner = gathered(values, mask)
        pooled = [pool(vectors, owner, len(mask)) for pool in (mean_of_slides, max_of_slides)]
        result: Tensor = self.head(self.dropout(torch.cat(pooled, dim=1)))
        return result


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride=2, groups=width), nn.Conv2d(width, width, 1)
    )


def _halved(mask: Tensor) -> Tensor:
    """Where a convolution of stride 2 sees tissue: (B, H, W) → (B, ⌊H/2⌋ + 1, ⌊W/2⌋ + 1)."""
    return functional.max_pool2d(functional.pad(mask[:, None].float(), _EDGES), 3, 2)[:, 0] > 0
