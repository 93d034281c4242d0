"""Grids as batches: turned, cut and padded by chance in training, whole in judging."""

from __future__ import annotations

from collections.abc import Sequence

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
    grids: Sequence[Grid], window: int, rng: np.random.Generator, *, turned: bool
) -> tuple[Tensor, Tensor]:
    """Grids as features (B, D, H, W) and masks (B, H, W), each at a place by chance in the room.

    Of a grid whose tissue is larger than ``window`` places a window is cut, so that it holds a
    tissue place drawn by chance. ``turned``: each lies in one of eight ways; a grid with A = 8
    gives what its slide would give so, of one with A = 1 only the places move.
    """
    samples = [_sample(grid, window, rng, turned=turned) for grid in grids]
    shift = rng.integers(_SHIFTS, size=2) if turned else np.zeros(2, np.int64)
    height, width = (
        -(-(max(mask.shape[axis] for _, mask in samples) + int(shift[axis])) // _MULTIPLE)
        * _MULTIPLE
        for axis in (0, 1)
    )
    features = torch.zeros(len(samples), samples[0][0].shape[0], height, width)
    masks = torch.zeros(len(samples), height, width, dtype=torch.bool)
    for number, (values, mask) in enumerate(samples):
        high, wide = mask.shape
        top = int(rng.integers(height - high + 1))
        left = int(rng.integers(width - wide + 1))
        features[number, :, top : top + high, left : left + wide] = torch.from_numpy(values)
        masks[number, top : top + high, left : left + wide] = torch.from_numpy(mask)
    return features, masks


def _sample(grid: Grid, window: int, rng: np.random.Generator, *, turned: bool) -> Sample:
    orientation = int(rng.integers(_TURNS)) if turned else 0
    rows, columns = tissue_part(grid.mask)
    centre = grid.places()[rng.integers(int(grid.mask.sum()))].tolist()
    part = (
        _window(rows, centre[0], window, rng),
        _window(columns, centre[1], window, rng),
    )
    features, mask = _cut(grid, orientation if grid.entries == _TURNS else 0, part)
    return turn(features, orientation), turn(mask, orientation)


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
