"""Pictures as vectors of colour alone: what a search must beat to have seen more than the stain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.pictures import Picture

LEVELS = 8  # per channel, 32 grey values wide

Vectors = npt.NDArray[np.float32]


def mean_colours(pictures: Sequence[Picture]) -> Vectors:
    """The mean R, G, B of pictures (H, W, 3) uint8: (n, 3) float32, 0 to 255."""
    means = [picture.reshape(-1, 3).mean(axis=0, dtype=np.float64) for picture in pictures]
    return np.array(means, np.float32).reshape(-1, 3)


def colour_histograms(pictures: Sequence[Picture]) -> Vectors:
    """The shares p of 8 × 8 × 8 boxes of R, G, B among the pixels, as √(p / 2): (n, 512) float32.

    So L2 is the Hellinger distance of two histograms, 0 to 1, which does not drown in the few
    boxes that hold most of a patch. R, G, B together, since hue says nothing of grey and a stain
    matrix fits one scanner: neither has a setting to get wrong here.
    """
    shares = np.zeros((len(pictures), LEVELS**3), np.float32)
    for number, picture in enumerate(pictures):
        red, green, blue = (picture.reshape(-1, 3) // (256 // LEVELS)).astype(np.intp).T
        boxes = (red * LEVELS + green) * LEVELS + blue
        counts = np.bincount(boxes, minlength=LEVELS**3)
        shares[number] = np.sqrt(counts / (2 * len(boxes)))
    return shares
