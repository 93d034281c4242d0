"""How closely two columns of numbers go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def pearson(x: Floats, y: Floats) -> float | None:
    """Pearson's correlation of (n,) with (n,); None where either does not vary."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    dx, dy = x - np.mean(x, dtype=np.float64), y - np.mean(y, dtype=np.float64)
    norm = float(np.sqrt((dx * dx).sum() * (dy * dy).sum()))
    return None if norm == 0 else float(np.clip((dx * dy).sum() / norm, -1, 1))


def spearman(x: Floats, y: Floats) -> float | None:
    """Spearman's: Pearson's of the ranks, equal values sharing the mean of theirs."""
    return pearson(mean_ranks(x), mean_ranks(y))


def mean_ranks(values: Floats) -> npt.NDArray[np.float64]:
    """Ranks (n,) from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], np.float64)
