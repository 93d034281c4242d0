"""A small strided CNN on the whole grid (Tellez 2020): few convolutions, pooled over the slide.

What differs from theirs: a layer on each place comes first, and the convolutions are separable
(each channel by itself, then across channels), which learns rare tissue from a hundred slides where
full ones learn the slides by heart. Each place is normalised by itself (layer norm over channels)
instead of by batch norm, since a batch holds few slides and much padding. Pooled is by attention,
and at every stride: a mean drowns tissue that is rare, and so do convolutions that mix each of its
places with others. Off tissue every layer is zero, so that what surrounds a slide changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchknn.wholeslide.models.gated_attention import GatedAttention
from patchknn.wholeslide.models.tissue import Standardised, gathered

_SLOPE = 0.2
# Left, right, top, bottom. Two at the end, so that the last place is seen as often as if there were
# more behind it.
_EDGES = (1, 2, 1, 2)


class StridedCNN(nn.Module):
    """Grids (B, D, H, W) → outputs (B, O), through ``depth`` convolutions 3×3 of stride 2."""

    def __init__(
        self, dim: int, outputs: int, hidden: int = 64, depth: int = 2, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.input = Standardised(dim)
        self.places = nn.Conv2d(dim, hidden, 1)
        self.convolutions = nn.ModuleList(_separable(hidden) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.pools = nn.ModuleList(GatedAttention(hidden) for _ in range(depth + 1))
        self.head = nn.Linear((depth + 1) * hidden, outputs)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids, zero where ``mask`` (B, H, W) is false → (B, O)."""
        values = self._activated(self.places(self.input.grids(features, mask)), mask)
        pooled = [self.pools[0](*gathered(values, mask), len(mask))]
        layers = zip(self.convolutions, self.norms, self.pools[1:], strict=True)
        for convolution, norm, pool in layers:
            mask = _halved(mask)
            convolved = convolution(functional.pad(values, _EDGES))
            values = self._activated(norm(convolved.movedim(1, 3)).movedim(3, 1), mask)
            pooled.append(pool(*gathered(values, mask), len(mask)))
        result: Tensor = self.head(torch.cat(pooled, dim=1))
        return result

    def _activated(self, values: Tensor, mask: Tensor) -> Tensor:
        activated: Tensor = self.dropout(functional.leaky_relu(values, _SLOPE))
        return activated * mask[:, None]


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride=2, groups=width), nn.Conv2d(width, width, 1)
    )


def _halved(mask: Tensor) -> Tensor:
    """Where a convolution of stride 2 sees tissue: (B, H, W) → (B, ⌊H/2⌋ + 1, ⌊W/2⌋ + 1)."""
    return functional.max_pool2d(functional.pad(mask[:, None].float(), _EDGES), 3, 2)[:, 0] > 0
