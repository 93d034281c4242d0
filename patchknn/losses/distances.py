"""Distances between rows, exact for identical rows and with a finite gradient there."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from patchknn.losses.batch_distances import batch_distances, has_fast_path

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
    if others is None:
        if has_fast_path(rows):
            return batch_distances(rows)
        others = rows
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def cosine_distances(rows: Tensor) -> Tensor:
    """K/2 · (1 − cos) of every pair: (B, K) → (B, B); for sign codes it is the Hamming distance.

    Deep Cauchy Hashing (Cao 2018, Eq. 6). A zero row counts as orthogonal to all.

    1 − cos is taken as ||û − v̂||² / 2 of the unit rows: computed from cos it is lost in rounding
    where rows point nearly the same way, and clamping cos would leave such negatives without a
    gradient.
    """
    norms = euclidean_norm(rows)
    is_zero = norms == 0
    # A zero row has no direction to be turned in, and no gradient: 1 / 0 stays out of it.
    scaled = rows / torch.where(is_zero, 1.0, norms)[:, None]
    unit = torch.where(is_zero[:, None], 0.0, scaled)
    # ||û||² is missing from the square wherever û is zero: once for each zero row of a pair.
    zero = is_zero.to(rows.dtype)
    apart = 1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    squared = euclidean_distances(unit).square() + apart * (zero[:, None] + zero[None, :])
    return rows.shape[1] / 4 * squared


def distances_by_name(rows: Tensor, name: DistanceName) -> Tensor:
    """Pairwise distances (B, B) of the named kind."""
    return cosine_distances(rows) if name == "cosine" else euclidean_distances(rows)
