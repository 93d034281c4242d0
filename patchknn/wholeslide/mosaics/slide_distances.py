"""How far slides are from each other by their mosaics, and which patches say so.

Both distances look from the query: each patch of its mosaic goes to the nearest patch of the other
slide's, so that one slide may hold what another does and more.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from patchknn.archive.mosaics import Mosaic, Mosaics
from patchknn.hamming.exact import l2_distances
from patchknn.hamming.minima import group_minima, word_columns
from patchknn.hamming.threads import share_out

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_BLOCK_NUMBERS = 1 << 21  # of features in single precision that a block of slides has
_UNIT = 2.0**-24  # rounding of single precision


class Nearest(NamedTuple):
    """Slides (k,) int64 by distance, and their distances (k,) float64."""

    slides: Int64
    distances: Float64


class Pairs(NamedTuple):
    """For each patch (m,) of a query the nearest one of a slide, and how far it is."""

    partners: Int64
    distances: Float64


class SlideDistances(Protocol):
    """A way to compare slides."""

    def nearest(self, query: Mosaic, admitted: Mask, k: int) -> Nearest:
        """The k nearest of the ``admitted`` (S,) slides, fewer where there are fewer."""

    def pairs(self, query: Mosaic, slide: int) -> Pairs:
        """Which patches of one slide are nearest to the query's."""


class HammingDistances:
    """The median over the query's patches of the least Hamming distance, in bits.

    Kalra et al. 2020 (Yottixel), "median of minimums". Medians of bits tie often: ties go to the
    smaller mean of the same minima, then to the name.
    """

    def __init__(self, mosaics: Mosaics, threads: int = 1) -> None:
        self._mosaics = mosaics
        self._threads = threads
        self._columns = word_columns(mosaics.codes)

    def nearest(self, query: Mosaic, admitted: Mask, k: int) -> Nearest:
        """As ``SlideDistances.nearest``."""
        slides = np.flatnonzero(admitted)
        minima = group_minima(self._columns, self._mosaics.starts, query.codes, self._threads)
        minima = minima[:, slides]
        medians = np.median(minima, axis=0)
        order = np.lexsort((minima.mean(axis=0), medians))[:k]
        return Nearest(slides[order], medians[order])

    def pairs(self, query: Mosaic, slide: int) -> Pairs:
        """As ``SlideDistances.pairs``; distances are in bits."""
        own = self._columns[:, self._mosaics.entries(slide)]
        each = np.arange(own.shape[1] + 1)
        away = group_minima(np.ascontiguousarray(own), each, query.codes)
        partners = away.argmin(axis=1)
        return Pairs(partners, away[np.arange(len(away)), partners].astype(np.float64))


class L2Distances:
    """The mean over the query's patches of the least L2 distance of features.

    Single precision tells with a proven margin which slides may be among the nearest; those are
    measured in double precision, as everything that is shown. Ties go to the name.
    """

    def __init__(self, mosaics: Mosaics, threads: int = 1) -> None:
        from threadpoolctl import ThreadpoolController

        self._mosaics = mosaics
        self._threads = threads
        self._libraries = ThreadpoolController()

    def nearest(self, query: Mosaic, admitted: Mask, k: int) -> Nearest:
        """As ``SlideDistances.nearest``."""
        slides = np.flatnonzero(admitted)
        if len(slides) > k:
            low, high = self._bounds(query.features)
            reach = np.partition(high[slides], k - 1)[k - 1]
            slides = slides[~(low[slides] > reach)]
        exact = np.array([self.pairs(query, slide).distances.mean() for slide in slides.tolist()])
        order = np.argsort(exact, kind="stable")[:k]
        return Nearest(slides[order], exact[order].astype(np.float64))

    def pairs(self, query: Mosaic, slide: int) -> Pairs:
        """As ``SlideDistances.pairs``."""
        own = np.ascontiguousarray(self._mosaics.features[self._mosaics.entries(slide)])
        away = np.stack([l2_distances(own, feature) for feature in query.features])
        partners = away.argmin(axis=1)
        return Pairs(partners, away[np.arange(len(away)), partners])

    def _bounds(self, features: npt.NDArray[Any]) -> tuple[Float64, Float64]:
        """Between which numbers the distance (S,) of each slide lies."""
        starts, stored = self._mosaics.starts, self._mosaics.features
        wanted = np.asarray(features, np.float32)
        size, dim = wanted.shape
        own = np.einsum("md,md->m", wanted, wanted)
        low, high = np.empty((2, len(starts) - 1), np.float64)

        def fill(slides: slice) -> None:
            first, last = int(starts[slides.start]), int(starts[slides.stop])
            block = np.asarray(stored[first:last], np.float32)
            groups = starts[slides] - first
            with np.errstate(over="ignore", invalid="ignore"):
                lengths = np.einsum("nd,nd->n", block, block)[:, None] + own
                squared = lengths - 2 * (block @ wanted.T)
                # Of q·x, q·q and x·x each is wrong by D roundings at most (Higham 2002, 3.1).
                error = 2.2 * (dim + 8) * _UNIT * lengths + np.float32(1e-30)
                least = np.minimum.reduceat(squared - error, groups, axis=0)
                most = np.minimum.reduceat(squared + error, groups, axis=0)
            # What is too large for single precision has no bounds, and is measured.
            low[slides] = _mean_root(np.nan_to_num(least, nan=0, posinf=0))
            high[slides] = _mean_root(np.nan_to_num(most, nan=np.inf, posinf=np.inf))

        step = max(1, _BLOCK_NUMBERS // max(dim, size))
        edges = np.unique(np.searchsorted(starts, np.arange(0, starts[-1] + step, step)))
        edges[-1] = len(starts) - 1
        blocks = [slice(a, b) for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
        # Products of this shape are slower where several threads of a library share each.
        with self._libraries.limit(limits=1):
            share_out(self._threads, fill, blocks)
        slack = 1e-6  # of the roots and the mean, in double precision
        return low * (1 - slack), high * (1 + slack)


def _mean_root(squares: npt.NDArray[np.float32]) -> Float64:
    """Squares (s, m) as the mean (s,) of their roots."""
    return np.asarray(np.sqrt(np.maximum(squares, 0), dtype=np.float64).mean(axis=1))
