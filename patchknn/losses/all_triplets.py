"""The plain triplet sum: every anchor with every positive and every negative of the batch.

n classes of k rows make n·k·(k − 1)·(n − 1)·k triplets, so they are gone through in blocks of
anchors, and the gradient is found on the way rather than from what autograd would keep of all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patchknn.losses.hinge import hinge, hinge_slope
from patchknn.losses.mining import most_candidates, nearest, other_class, same_class

_BLOCK_TRIPLETS = 1 << 21


class AllTriplets(NamedTuple):
    """``mean`` of the hinge with its graph; how many triplets there are, how many violated."""

    mean: Tensor
    triplets: Tensor
    active: Tensor


def all_triplets(
    distances: Tensor, labels: Tensor, margin: float | None, *, only_active: bool = False
) -> AllTriplets:
    """Mean of the hinge of d_ap − d_an over all triplets: distances (B, B), labels (B,).

    ``only_active`` leaves terms that are 0 out of the mean. Memory is that of (B, B) matrices
    and of blocks of 2²¹ triplets, at least one anchor's.
    """
    return AllTriplets(*_AllTriplets.apply(distances, labels, margin, only_active))


class _AllTriplets(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, distances: Tensor, labels: Tensor, margin: float | None, only_active: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        same, other = same_class(labels), other_class(labels)
        positives = nearest(distances, same, most_candidates(same))
        gradient = torch.zeros_like(distances)
        total = distances.new_zeros(())
        triplets, active, counted = (labels.new_zeros((), dtype=torch.int64) for _ in range(3))
        block = max(1, _BLOCK_TRIPLETS // max(positives.index.numel(), 1))
        for begin in range(0, len(labels), block):
            rows = slice(begin, begin + block)
            near = positives.index[rows]
            gap = distances[rows].gather(1, near)[:, :, None] - distances[rows][:, None, :]
            valid = positives.valid[rows][:, :, None] & other[rows][:, None, :]
            values = torch.where(valid, hinge(gap, margin), 0.0)
            slopes = torch.where(valid, hinge_slope(gap, margin), 0.0)
            total += values.sum()
            triplets += valid.sum()
            active += ((gap + (margin or 0.0) > 0) & valid).sum()
            counted += (values > 0).sum() if only_active else valid.sum()
            gradient[rows] = -slopes.sum(dim=1)
            gradient[rows].scatter_add_(1, near, slopes.sum(dim=2))
        count = counted.clamp(min=1)
        ctx.save_for_backward(gradient / count)
        ctx.mark_non_differentiable(triplets, active)
        return total / count, triplets, active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        (of_distances,) = ctx.saved_tensors
        return gradient * of_distances, None, None, None
