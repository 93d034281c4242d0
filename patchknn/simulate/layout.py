"""Where the tissues lie: a mesh of irregular regions that fit together without gaps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchknn.simulate.classes import CLASS_NAMES

_CELL_MICROMETRES = 190.0
_MARGIN = 0.03
_ROUGHNESS = 0.11
_HALVINGS = 4

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """One patch of tissue: its class and outline (n, 2), x and y in level-0 pixels, not closed."""

    label: str
    outline: Points


def draw_layout(size_px: int, mpp: float, rng: np.random.Generator) -> list[Region]:
    """Regions for a square slide of ``size_px``: at least 3 × 3, every class at least once."""
    cells = max(3, round(size_px * mpp / _CELL_MICROMETRES))
    corners = _corners(size_px, cells, rng)
    horizontal = _rough_lines(corners, rng)
    vertical = _rough_lines(corners.swapaxes(0, 1), rng)
    labels = _labels(cells * cells, rng)
    regions = []
    for row in range(cells):
        for column in range(cells):
            sides = (
                horizontal[row][column][:-1],
                vertical[column + 1][row][:-1],
                horizontal[row + 1][column][:0:-1],
                vertical[column][row][:0:-1],
            )
            outline = np.clip(np.concatenate(sides), 0, size_px)
            regions.append(Region(labels[row * cells + column], np.round(outline, 1)))
    return regions


def _corners(size_px: int, cells: int, rng: np.random.Generator) -> Points:
    line = np.linspace(_MARGIN * size_px, (1 - _MARGIN) * size_px, cells + 1)
    grid = np.stack(np.meshgrid(line, line), axis=2)
    step = line[1] - line[0]
    moved = grid + rng.uniform(-0.2, 0.2, grid.shape) * step
    # Bend the whole mesh too, so that its rows and columns do not show.
    phase = rng.uniform(0, 2 * np.pi, 4)
    turn = grid / size_px * 2 * np.pi
    bend = np.sin(turn[..., ::-1] + phase[:2]) + 0.5 * np.sin(2 * turn[..., ::-1] + phase[2:])
    moved += bend * step * 0.22
    inside: Points = np.clip(moved, 0.01 * size_px, 0.99 * size_px)
    return inside


def _rough_lines(corners: Points, rng: np.random.Generator) -> list[list[Points]]:
    """The lines between neighbouring corners, row by row."""
    return [
        [_rough_line(start, stop, rng) for start, stop in itertools.pairwise(row)]
        for row in corners
    ]


def _rough_line(start: Points, stop: Points, rng: np.random.Generator) -> Points:
    """Midpoint displacement: (17, 2) points, rough at every scale, ends kept."""
    points = np.stack([start, stop])
    for _ in range(_HALVINGS):
        ahead = points[1:] - points[:-1]
        across = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
        middle = (points[1:] + points[:-1]) / 2
        middle += across * rng.uniform(-_ROUGHNESS, _ROUGHNESS, (len(ahead), 1))
        merged = np.empty((len(points) + len(middle), 2))
        merged[::2], merged[1::2] = points, middle
        points = merged
    return points


def _labels(count: int, rng: np.random.Generator) -> list[str]:
    """All classes in turn, so that none is rare, in an order drawn anew for each round."""
    rounds = -(-count // len(CLASS_NAMES))
    names = [name for _ in range(rounds) for name in rng.permutation(list(CLASS_NAMES))]
    return [str(name) for name in rng.permutation(names[:count])]
