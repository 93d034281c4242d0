"""Distances between rows, exact for identical rows and with a finite gradient there."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

DistanceName = Literal["euclidean", "cosine"]


def safe_sqrt(squared: Tensor) -> Tensor:
    """Square root of values ≥ 0 whose gradient at 0 is 0, where that of ``sqrt`` is infinite."""
    positive = squared > 0
    # The inner where keeps the infinite gradient out of the backward pass (inf · 0 = NaN).
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def euclidean_norm(rows: Tensor) -> Tensor:
    """L2 norm of each row: (B, K) → (B,); a zero row has norm 0 and gradient 0."""
    return safe_sqrt(rows.square().sum(dim=1))


def euclidean_distances(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """L2 distance of every pair: (B, K) and (M, K), by default the same → (B, M).

    By direct differences: the matrix-product path reads up to 0.5 for identical rows. The
    gradient of a distance of 0 is 0.
    """
    others = rows if others is None else others
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def cosine_distances(rows: Tensor) -> Tensor:
    """K/2 · (1 − cos) of every pair: (B, K) → (B, B); for sign codes it is the Hamming distance.

    Deep Cauchy Hashing (Cao 2018, Eq. 6). cos is not clamped: clamping it would leave collapsed
    negatives without a gradient. A zero row counts as orthogonal to all.
    """
    norms = euclidean_norm(rows).clamp(min=torch.finfo(rows.dtype).tiny)
    unit = rows / norms[:, None]
    distances = rows.shape[1] / 2 * (1 - unit @ unit.T)
    return distances.clamp(min=0)  # rounding may leave −1e-7 for identical rows


def distances_by_name(rows: Tensor, name: DistanceName) -> Tensor:
    """Pairwise distances (B, B) of the named kind."""
    return cosine_distances(rows) if name == "cosine" else euclidean_distances(rows)
