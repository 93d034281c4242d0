"""Grids as batches: turned, cut and padded by chance in training, whole in judging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchknn.wholeslide.grids.grid import Grid, turn

_TURNS = 8
# Grids are padded by some places more than they need: else those of one size would always lie in
# the same way to the strides of a CNN. And to a multiple: on CPUs each new shape takes time, and
# memory.
_SHIFTS, _MULTIPLE = 8, 8

Sample = tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]


def whole(grid: Grid) -> tuple[Tensor, Tensor]:
    """The tissue's part of a grid as a batch of one: features (1, D, H, W), mask (1, H, W)."""
    features, mask = _cut(grid, 0, tissue_part(grid.mask))
    return torch.from_numpy(features).float()[None], torch.from_numpy(mask)[None]


def training_batch(
    grids: Sequence[Grid],
    window: int,
    rng: np.random.Generator,
    *,
    turned: bool,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Grids as float16 features (B, D, H, W) and masks (B, H, W), each at a place by chance.

    Of a grid whose tissue is larger than ``window`` places a window is cut, so that it holds a
    tissue place drawn by chance. ``turned``: each lies in one of eight ways; a grid with A = 8
    gives what its slide would give so, of one with A = 1 only the places move. Only the ``part``
    of the batch is read and returned, as it is in the whole.
    """
    views = [_view(grid, window, rng, turned=turned) for grid in grids]
    shift = rng.integers(_SHIFTS, size=2) if turned else np.zeros(2, np.int64)
    room = np.max([view.size for view in views], axis=0) + shift
    height, width = (-(-room // _MULTIPLE) * _MULTIPLE).tolist()
    corners = [
        (int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1)))
        for high, wide in (view.size for view in views)
    ]
    mine = list(zip(views, corners, strict=True))[part]
    # NumPy, since each thread that reads ahead would start threads of torch.
    features = np.zeros((len(mine), grids[0].features.shape[1], height, width), np.float16)
    masks = np.zeros((len(mine), height, width), np.bool_)
    for number, (view, (top, left)) in enumerate(mine):
        values, mask = view.read()
        high, wide = view.size
        features[number, :, top : top + high, left : left + wide] = values
        masks[number, top : top + high, left : left + wide] = mask
    return torch.from_numpy(features), torch.from_numpy(masks)


def most_places(shapes: Iterable[tuple[int, ...]], window: int, *, turned: bool) -> int:
    """How many places a slide has at most in a training batch of grids of these shapes (H, W)."""
    high, wide = (max(min(side, window) for side in sides) for sides in zip(*shapes, strict=True))
    if turned:
        high = wide = max(high, wide) + _SHIFTS
    places: int = (high + _MULTIPLE) * (wide + _MULTIPLE)
    return places


@dataclass(frozen=True)
class _View:
    """A part of a grid, to lie in one of eight ways."""

    grid: Grid
    orientation: int
    rows: slice
    columns: slice

    @property
    def size(self) -> tuple[int, int]:
        """Its places, as it lies: height and width."""
        size = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return size[::-1] if self.orientation // 2 % 2 else size

    def read(self) -> Sample:
        """Features (D, h, w) and mask (h, w), as it lies."""
        entry = self.orientation if self.grid.entries == _TURNS else 0
        features, mask = _cut(self.grid, entry, (self.rows, self.columns))
        return turn(features, self.orientation), turn(mask, self.orientation)


def _view(grid: Grid, window: int, rng: np.random.Generator, *, turned: bool) -> _View:
    orientation = int(rng.integers(_TURNS)) if turned else 0
    rows, columns = tissue_part(grid.mask)
    row, column = grid.places()[rng.integers(int(grid.mask.sum()))].tolist()
    return _View(
        grid, orientation, _window(rows, row, window, rng), _window(columns, column, window, rng)
    )


def _window(part: slice, held: int, window: int, rng: np.random.Generator) -> slice:
    """``window`` places of a part by chance, with the place ``held`` among them."""
    first, after = part.start, part.stop
    if after - first <= window:
        return part
    start = int(rng.integers(max(first, held - window + 1), min(held, after - window) + 1))
    return slice(start, start + window)


def _cut(grid: Grid, entry: int, part: tuple[slice, slice]) -> Sample:
    return np.array(grid.features[(entry, slice(None), *part)]), np.array(grid.mask[part])


def tissue_part(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns of a mask (H, W) in which the tissue lies; one place without any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
