"""Distances of rows to a few constant rows each, by direct differences."""

from __future__ import annotations

from torch import Tensor

from patchknn.losses.distances import safe_sqrt


def pair_distances(rows: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """L2 distance of row i to ``others[index[i, r]]``: (B, D), (N, D) and (B, R) → (B, R).

    ``others`` are constants and may be of lower precision. A distance of 0 has gradient 0.
    """
    differences = rows[:, None, :] - others.detach()[index].to(rows.dtype)
    return safe_sqrt(differences.square().sum(dim=2))
