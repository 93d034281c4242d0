"""Distances within a batch, each pair once, with a gradient by matrix product in float64.

torch's direct ``cdist`` goes through its elements one by one, forwards and backwards; ``pdist``
takes the same differences with vector instructions and for half of the pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def has_fast_path(rows: Tensor) -> bool:
    """Whether ``batch_distances`` takes these rows; for others there is ``cdist``."""
    # The backward pass needs a precision above that of the rows, which MPS does not have.
    return rows.dtype == torch.float32 and rows.device.type in {"cpu", "cuda"}


def batch_distances(rows: Tensor) -> Tensor:
    """L2 distance of every pair by direct differences: (B, K) float32 → (B, B), 0 diagonal.

    The gradient of a distance of 0 is 0.
    """
    distances: Tensor = _BatchDistances.apply(rows)
    return distances


class _BatchDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        upper = torch.ones(len(rows), len(rows), dtype=torch.bool, device=rows.device).triu_(1)
        half = torch.zeros(upper.shape, dtype=rows.dtype, device=rows.device)
        half.masked_scatter_(upper, torch.pdist(rows))
        square = half + half.T
        ctx.save_for_backward(rows, square)
        return square

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rows, square = ctx.saved_tensors
        # Σ_j w_ij (x_i − x_j) = x_i Σ_j w_ij − Σ_j w_ij x_j cancels where rows are near each
        # other: not in float64, since float32 rows that differ do so by more than it rounds off.
        weights = torch.where(square > 0, (gradient + gradient.T) / square, 0.0).double()
        operator = -weights
        operator.diagonal().add_(weights.sum(dim=1))
        rows_gradient: Tensor = (operator @ rows.double()).to(rows.dtype)
        return rows_gradient
