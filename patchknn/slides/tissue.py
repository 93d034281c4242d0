"""Where a slide holds tissue: Otsu (1979) on saturation, then closing, at a fixed µm/px.

Otsu's threshold always cuts a histogram in two, also that of a blank slide or of one that is all
tissue. It is therefore kept within limits between which glass and stained tissue part, whatever
the histogram: below the lower limit nothing is tissue, above the upper one everything is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchknn.slides.readers import SlideReader

MASK_MPP = 8.0
CLOSING_UM = 64.0
MIN_THRESHOLD, MAX_THRESHOLD = 0.07, 0.11
_BLACK = 30
TISSUE_METHOD = (
    f"otsu-saturation-1 mpp={MASK_MPP:g} limits={MIN_THRESHOLD:g}..{MAX_THRESHOLD:g} "
    f"closing_um={CLOSING_UM:g}"
)


@dataclass(frozen=True)
class TissueMask:
    """``mask`` (H, W) bool over the whole slide at ``mpp`` µm/px, and the threshold used."""

    mask: NDArray[np.bool_]
    mpp: float
    threshold: float


def find_tissue(slide: SlideReader, *, threads: int = 1) -> TissueMask:
    """Detect the tissue of a slide; raises InputError where it cannot be read or has no mpp."""
    # Pixels larger than the mask's would be told apart by interpolation alone.
    mpp = max(MASK_MPP, slide.require_mpp())
    overview = slide.read_overview(mpp, threads=threads)
    mask, threshold = tissue_mask(overview, closing_px=round(CLOSING_UM / mpp))
    return TissueMask(mask, mpp, threshold)


def tissue_mask(rgb: NDArray[np.uint8], *, closing_px: int) -> tuple[NDArray[np.bool_], float]:
    """Mask (H, W) of tissue in RGB (H, W, 3), and the saturation threshold (0 to 1).

    Holes and gaps narrower than ``closing_px`` pixels are closed.
    """
    levels = saturation(rgb)
    threshold = min(max(otsu_threshold(levels), MIN_THRESHOLD), MAX_THRESHOLD)
    return close_gaps(levels > threshold * 255, closing_px), threshold


def saturation(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """HSV saturation (H, W) uint8, 255 for 1; black pixels, whose hue is noise, have none."""
    red, green, blue = rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2]
    highest = np.maximum(np.maximum(red, green), blue)  # ten times as fast as max(axis=2)
    lowest = np.minimum(np.minimum(red, green), blue)
    spread = (highest - lowest).astype(np.uint16) * 255
    levels = spread // np.maximum(highest, 1)
    levels[highest < _BLACK] = 0
    return np.asarray(levels, dtype=np.uint8)


def otsu_threshold(levels: NDArray[np.uint8]) -> float:
    """Otsu's threshold of uint8 values as a share of 255; 0 where there is one value only.

    The cut whose two classes have the largest variance between them; values above it are the
    upper class.
    """
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    if np.count_nonzero(counts) < 2:
        return 0.0
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    between = np.where((below > 0) & (above > 0), below * above * distance**2, -1.0)
    return int(np.argmax(between)) / 255


def close_gaps(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Morphological closing by a square of ``width`` (made odd); the border is continued."""
    radius = width // 2
    if radius < 1 or not mask.any():
        return mask
    padded = np.pad(mask, radius, mode="edge")
    grown = _spread(_spread(padded, radius, 0), radius, 1)
    closed = ~_spread(_spread(~grown, radius, 0), radius, 1)
    return closed[radius:-radius, radius:-radius] | mask


def _spread(mask: NDArray[np.bool_], radius: int, axis: int) -> NDArray[np.bool_]:
    """Whether any pixel within ``radius`` along an axis is set."""
    found = np.ascontiguousarray(mask.T) if axis else mask  # rows are shifted as a whole
    length, reached = len(found), 0
    # Windows that grow to twice their length take few steps, whatever the radius.
    window = found.copy()  # of pixel i, whether any of i .. i + reached is set
    while reached < min(2 * radius, length - 1):
        step = min(reached + 1, 2 * radius - reached, length - 1 - reached)
        window[: length - step] |= window[step:].copy()
        reached += step
    centred = window.copy()
    centred[radius:] = window[: length - radius]
    for start in range(min(radius, length)):
        centred[start] = found[: start + radius + 1].any(axis=0)
    return centred.T if axis else centred
