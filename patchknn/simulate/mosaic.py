"""Stroma over a canvas of any size, painted in bands, so that memory does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from patchknn.simulate.canvas import Floats, Site, Stains
from patchknn.simulate.connective import stroma

_TILE_PX = 1024
_OVERLAP_PX = 64


def stroma_bands(
    size_px: int, mpp: float, rng: np.random.Generator
) -> Iterator[tuple[int, Stains]]:
    """Bands of a square canvas of stroma from top to bottom: first row, and stains (rows, size).

    The canvas is a mosaic of pieces of at most about 1,000 px, each with fibres of its own
    direction, that fade into each other. No piece has lymphocytes: those are drawn on top.
    """
    pieces = math.ceil(size_px / (_TILE_PX + _OVERLAP_PX))
    edges = np.linspace(0, size_px, pieces + 1).astype(int)
    left_over: Stains | None = None
    for row in range(pieces):
        top, bottom, down = _piece(edges, row)
        height = bottom - top
        haematoxylin = np.zeros((height, size_px), np.float32)
        eosin = np.zeros((height, size_px), np.float32)
        if left_over is not None:
            haematoxylin[: len(left_over.eosin)] = left_over.haematoxylin
            eosin[: len(left_over.eosin)] = left_over.eosin
        for column in range(pieces):
            left, right, across = _piece(edges, column)
            painted = stroma(Site(height, right - left, mpp, rng), lymphocytes=False)
            weight = down[:, None] * across
            haematoxylin[:, left:right] += weight * painted.haematoxylin
            eosin[:, left:right] += weight * painted.eosin
        done = height if row == pieces - 1 else _piece(edges, row + 1)[0] - top
        yield top, Stains(haematoxylin[:done], eosin[:done])
        left_over = Stains(haematoxylin[done:], eosin[done:])


def _piece(edges: npt.NDArray[np.int_], number: int) -> tuple[int, int, Floats]:
    """First and one past the last pixel along one axis, and the weight of each (n,)."""
    half = _OVERLAP_PX // 2
    first = int(edges[number]) - (half if number > 0 else 0)
    last = int(edges[number + 1]) + (half if number + 2 < len(edges) else 0)
    weight = np.ones(last - first, np.float32)
    ramp = (np.arange(_OVERLAP_PX, dtype=np.float32) + 0.5) / _OVERLAP_PX
    if number > 0:
        weight[:_OVERLAP_PX] = ramp
    if number + 2 < len(edges):
        weight[-_OVERLAP_PX:] = 1 - ramp
    return first, last, weight
