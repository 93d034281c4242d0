"""How much of each tile the annotated regions of a class cover.

Measured along 64 lines per tile: exact along x, sampled along y. A straight edge is thereby
measured to better than 1/64 of a tile. Holes are honoured, and regions of one class that overlap
count once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchknn.slides.annotations import Region

LINES_PER_TILE = 64


def label_tiles(
    regions: Sequence[Region], coords: NDArray[np.int64], side: float, min_cover: float
) -> tuple[str | None, ...]:
    """The class that covers most of each tile (N), or None where it covers under ``min_cover``.

    ``coords`` (N, 2) are level-0 corners, ``side`` a tile's length in level-0 pixels. Of classes
    that cover a tile equally, the first by name is taken.
    """
    labels: list[str | None] = [None] * len(coords)
    best = np.full(len(coords), max(min_cover, 1e-9) - 1e-9)
    for label in sorted({region.label for region in regions}):
        cover = covered([r for r in regions if r.label == label], coords, side)
        for index in np.flatnonzero(cover > best):
            labels[index], best[index] = label, cover[index]
    return tuple(labels)


def covered(
    regions: Sequence[Region], coords: NDArray[np.int64], side: float
) -> NDArray[np.float64]:
    """Share (N,) of each tile that lies in any of the regions."""
    shares = np.zeros(len(coords))
    edges, owners = _edges(regions)
    tops, bottoms = edges[:, 1:4:2].min(axis=1), edges[:, 1:4:2].max(axis=1)
    for y in np.unique(coords[:, 1]):
        band = (tops < y + side) & (bottoms > y)
        if not band.any():
            continue
        row = np.flatnonzero(coords[:, 1] == y)
        lefts = coords[row, 0].astype(np.float64)
        lines = y + (np.arange(LINES_PER_TILE) + 0.5) * (side / LINES_PER_TILE)
        shares[row] = _length_inside(edges[band], owners[band], lines, lefts, side)
    return shares / (side * LINES_PER_TILE)


def _edges(regions: Sequence[Region]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    edges, owners = [np.empty((0, 4))], [np.empty(0, dtype=np.int64)]
    for number, region in enumerate(regions):
        for ring in region.rings:
            edges.append(np.hstack([ring, np.roll(ring, -1, axis=0)]))
            owners.append(np.full(len(ring), number))
    return np.concatenate(edges), np.concatenate(owners)


def _length_inside(
    edges: NDArray[np.float64],
    owners: NDArray[np.int64],
    lines: NDArray[np.float64],
    lefts: NDArray[np.float64],
    side: float,
) -> NDArray[np.float64]:
    """How much of the lines (L,) lies inside a region, per tile (N,) that they cross."""
    crossing = (edges[:, 1] <= lines[:, None]) != (edges[:, 3] <= lines[:, None])
    line, edge = np.nonzero(crossing)
    if not len(line):
        return np.zeros(len(lefts))
    x1, y1, x2, y2 = edges[edge].T
    x = x1 + (lines[line] - y1) * (x2 - x1) / (y2 - y1)
    # Every region's outline and holes are crossed in pairs: in, out, in, out (even-odd rule).
    order = np.lexsort((x, owners[edge], line))
    # One line behind the other, as if it were one, so that all are measured at once.
    first = min(x.min(), lefts.min())
    ahead = np.arange(len(lines)) * (max(x.max(), lefts.max() + side) - first + 1) - first
    x = (x + ahead[line])[order]
    starts, stops = x[0::2], x[1::2]
    by_start = np.argsort(starts, kind="stable")
    starts, stops = starts[by_start], np.maximum.accumulate(stops[by_start])
    # Intervals that overlap become one, so that nothing is counted twice.
    new = np.append(True, starts[1:] > stops[:-1])
    starts, stops = starts[new], stops[np.append(new[1:], True)]
    ends = np.stack([starts, stops], axis=1).ravel()
    lengths = np.cumsum(np.stack([np.zeros(len(starts)), stops - starts], axis=1).ravel())
    tiles = lefts + ahead[:, None]
    inside = np.interp(tiles + side, ends, lengths) - np.interp(tiles, ends, lengths)
    return np.asarray(inside.sum(axis=0))
