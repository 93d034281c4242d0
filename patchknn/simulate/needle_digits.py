"""Handwritten digits on black: one that counts, or none, among others that do not."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchknn.simulate.needle_settings import NeedleSettings, Scene

# Cells are a little wider than a digit, so that digits lie where they will and never overlap.
_ROOM = 1.1
_CLUTTER = 0.5
# Mean grey of every digit: below that of the palest of them, so that none is clipped.
_INK = 0.17
_DRAWN_BEFORE_PX = 64
# Of twenty originals in turn, those that each split draws from: none is in two. Contiguous parts
# would keep writers apart too, but then new hands limit accuracy (0.83 where it is 0.97 so), and
# not the ratio.
_PARTS = {"train": (0, 14), "val": (14, 17), "test": (17, 20)}

Grey = npt.NDArray[np.uint8]


class Digits:
    """Places and paints digits; scikit-learn's own, 8 × 8 px, made larger.

    Every digit has the same mean grey: brightness does not tell which one it is.
    """

    def __init__(self, settings: NeedleSettings) -> None:
        self._settings = settings
        self._cells = max(int(settings.size_px / (_ROOM * settings.object_px)), 1)
        clutter = _CLUTTER if settings.clutter is None else settings.clutter
        self.places = self._cells**2
        self.objects = max(round(clutter * self.places), 1)

    @staticmethod
    def smallest_px(_: NeedleSettings) -> int:
        """The needle's least width: that of the originals."""
        return 8

    def place(self, *, positive: bool, rng: np.random.Generator) -> Scene:
        """Put digits into cells of a grid, each anywhere within its own."""
        edges = np.linspace(0, self._settings.size_px, self._cells + 1).astype(int)
        cells = rng.choice(self.places, self.objects, replace=False)
        first = np.stack([edges[cells % self._cells], edges[cells // self._cells]], axis=1)
        last = np.stack([edges[cells % self._cells + 1], edges[cells // self._cells + 1]], axis=1)
        corners = rng.integers(first, last - self._settings.object_px + 1)
        needle = (int(corners[0, 0]), int(corners[0, 1])) if positive else None
        return Scene(needle, corners.astype(float))

    def paint(self, scene: Scene, split: str, patient: int, rng: np.random.Generator) -> Grey:
        """Grey (size, size): originals that belong to ``split``; there are no patients."""
        del patient
        needles, others = _pools(split, self._settings.needle)
        chosen = rng.choice(others, len(scene.points))
        if scene.needle is not None:
            chosen[0] = rng.choice(needles)
        side = self._settings.object_px
        canvas = np.zeros((self._settings.size_px, self._settings.size_px), np.uint8)
        for (x, y), index in zip(scene.points.astype(int).tolist(), chosen.tolist(), strict=True):
            canvas[y : y + side, x : x + side] = digit(index, side)
        return canvas


def digit(index: int, side_px: int) -> Grey:
    """One original as (side, side) uint8, its mean grey that of all."""
    return _kept(index, side_px) if side_px <= _DRAWN_BEFORE_PX else _enlarged(index, side_px)


@functools.lru_cache(maxsize=4096)
def _kept(index: int, side_px: int) -> Grey:
    return _enlarged(index, side_px)


def _enlarged(index: int, side_px: int) -> Grey:
    image = Image.fromarray(_originals()[0][index])
    large = np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC)).clip(0)
    grey = large * np.float32(_INK * 255 / large.mean())
    # Rounded so that the sum is kept: what one pixel loses the next one gains.
    total = np.rint(np.cumsum(grey, dtype=np.float64))
    return np.diff(total, prepend=0).clip(0, 255).astype(np.uint8).reshape(side_px, side_px)


@functools.cache
def _originals() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int_]]:
    """Images (1797, 8, 8) and the digits they show (1797,)."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images.astype(np.float32), loaded.target


@functools.cache
def _pools(split: str, needle: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Indices of the originals of a split that are the needle, and of those that are not."""
    shown = _originals()[1]
    first, last = _PARTS[split]
    turn = np.arange(len(shown)) % 20
    indices = np.flatnonzero((first <= turn) & (turn < last))
    return indices[shown[indices] == needle], indices[shown[indices] != needle]
