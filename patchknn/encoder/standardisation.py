"""Mean and scale of stored features, by which a network on them standardises its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.errors import InputError

# Below this share of the usual spread an element is hardly ever anything but its mean: divided by
# its own spread, what is left of it would drown all others.
_LEAST_SPREAD = 0.01
_BLOCK = 8192

Floats = npt.NDArray[np.float64]


def standardisation(features: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean and scale (D,) float64 of training features (N, D), float16 or wider.

    The scale is the standard deviation per element, at least a hundredth of its root mean square
    over the elements, and 1 where nothing varies. Features are read in blocks and twice, so they
    may be memory-mapped. Raises InputError without a row or where one holds a NaN or an infinity.
    """
    if not len(features):
        message = "There are no features to standardise by; give training features."
        raise InputError(message)
    mean = _mean(features, np.zeros(features.shape[1]), 1)
    if not np.isfinite(mean).all():
        message = "The training features hold a NaN or an infinity; leave such rows out."
        raise InputError(message)
    variance = _mean(features, mean, 2)
    spread = np.sqrt(variance)
    usual = np.sqrt(variance.mean())
    scale = np.maximum(spread, _LEAST_SPREAD * usual) if usual > 0 else np.ones_like(spread)
    return mean, scale


def _mean(
    features: npt.NDArray[Any], centre: npt.NDArray[np.float64], power: int
) -> npt.NDArray[np.float64]:
    """The mean of (features − centre) to a power, (D,) float64, read block by block."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), _BLOCK):
        block = np.asarray(features[start : start + _BLOCK], np.float64) - centre
        total += (block**power).sum(axis=0)
    return total / len(features)
