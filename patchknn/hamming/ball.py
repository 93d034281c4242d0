"""Hamming balls over codes in sorted order: contiguous runs of rows at each distance."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from patchknn.hamming.packing import keys_of_words, words

# Looking one code up costs about as much as scanning this many (measured at 1e4 to 1e6 codes of
# 48 to 128 bits).
_LOOKUP_COST = 30
_MAX_LOOKUPS = 1 << 18


@dataclass(frozen=True)
class Runs:
    """Contiguous rows ``start[i]`` to ``stop[i]`` (exclusive) whose codes lie at ``distance[i]``.

    start, stop (m,) int64, ascending and disjoint; distance (m,) int32 in bits.
    """

    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    distance: npt.NDArray[np.int32]

    @property
    def n_rows(self) -> int:
        """How many rows the runs hold together."""
        return int((self.stop - self.start).sum())

    def rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Every row (r,) int64, ascending, and its distance (r,) int32."""
        lengths = self.stop - self.start
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        offsets = np.repeat(self.start - (ends - lengths), lengths)
        return np.arange(total, dtype=np.int64) + offsets, np.repeat(self.distance, lengths)


class BallIndex:
    """The distinct codes of sorted rows, and where the rows of each begin."""

    def __init__(
        self, bits: int, distinct: npt.NDArray[np.uint64], bounds: npt.NDArray[np.int64]
    ) -> None:
        self._columns = np.ascontiguousarray(distinct.T)
        self._keys = keys_of_words(distinct)
        self._bounds = bounds
        self._bits = bits

    @classmethod
    def from_sorted(cls, codes: npt.NDArray[np.uint8]) -> Self:
        """Index codes (n, K/8) that are in the order of their bytes; ValueError if they are not."""
        codes = np.asarray(codes, np.uint8)
        columns = words(codes)
        keys = keys_of_words(columns)
        if (keys[1:] < keys[:-1]).any():
            message = "the codes are not sorted"
            raise ValueError(message)
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(first)
        bounds = np.append(starts, len(keys)).astype(np.int64)
        return cls(8 * codes.shape[1], columns[starts], bounds)

    @property
    def n_rows(self) -> int:
        """How many rows are indexed."""
        return int(self._bounds[-1])

    @property
    def n_codes(self) -> int:
        """How many distinct codes they have."""
        return len(self._keys)

    def ball(self, query: npt.NDArray[np.uint8], radius: int) -> Runs:
        """The rows within Hamming ``radius`` (inclusive) of one query (K/8,)."""
        target = self._target(query)
        lookups = _ball_size(self._bits, radius)
        if lookups <= _MAX_LOOKUPS and lookups * _LOOKUP_COST < self.n_codes:
            return self._probed(target, radius)
        return self._scanned(target, radius)

    def counts(
        self,
        query: npt.NDArray[np.uint8],
        max_radius: int,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.int64]:
        """How many rows lie at each distance 0 to ``max_radius``: (max_radius + 1,) int64.

        ``mask`` (n,) keeps the rows that are true. Counts of several indexes may be added.
        """
        distances = self._distances(self._target(query))
        near = np.flatnonzero(distances <= max_radius)
        lengths = self._rows_per_code(mask)[near]
        totals = np.bincount(distances[near], weights=lengths, minlength=max_radius + 1)
        return totals.astype(np.int64)

    def smallest_radius(
        self,
        query: npt.NDArray[np.uint8],
        k: int,
        max_radius: int,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> int | None:
        """The smallest radius whose ball holds at least ``k`` rows; None where none up to the
        largest does.

        ``mask`` (n,) counts the rows that are true only.
        """
        return radius_reaching(self.counts(query, max_radius, mask), k)

    def _target(self, query: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        query = np.asarray(query, np.uint8)
        if query.shape != (self._bits // 8,):
            message = f"a query of shape {query.shape} does not fit codes of {self._bits} bits"
            raise ValueError(message)
        target: npt.NDArray[np.uint64] = words(query[None])[0]
        return target

    def _distances(self, target: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        distances = np.zeros(self.n_codes, np.int32)
        for column, word in zip(self._columns, target, strict=True):
            distances += np.bitwise_count(column ^ word)
        return distances

    def _rows_per_code(self, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
        if mask is None:
            return np.diff(self._bounds)
        if mask.shape != (self.n_rows,):
            message = f"a mask of shape {mask.shape} does not fit {self.n_rows} rows"
            raise ValueError(message)
        before = np.zeros(self.n_rows + 1, np.int64)
        np.cumsum(mask, out=before[1:])
        return np.diff(before[self._bounds])

    def _scanned(self, target: npt.NDArray[np.uint64], radius: int) -> Runs:
        distances = self._distances(target)
        near = np.flatnonzero(distances <= radius)
        return Runs(self._bounds[near], self._bounds[near + 1], distances[near])

    def _probed(self, target: npt.NDArray[np.uint64], radius: int) -> Runs:
        flips, distances = _flips(self._bits, radius)
        wanted: npt.NDArray[Any] = keys_of_words(flips ^ target)
        place = np.searchsorted(self._keys, wanted)
        place[place == self.n_codes] = 0
        found = np.flatnonzero(self._keys[place] == wanted)
        found = found[np.argsort(place[found])]
        near = place[found]
        return Runs(self._bounds[near], self._bounds[near + 1], distances[found])


def radius_reaching(counts: npt.NDArray[np.int64], k: int) -> int | None:
    """The first distance up to which ``counts`` (R + 1,) add up to at least ``k``, or None."""
    reached = np.flatnonzero(np.cumsum(counts) >= k)
    return int(reached[0]) if len(reached) else None


def _ball_size(bits: int, radius: int) -> int:
    total = 0
    for distance in range(min(radius, bits) + 1):
        total += math.comb(bits, distance)
        if total > _MAX_LOOKUPS:
            break
    return total


@functools.lru_cache(maxsize=8)
def _flips(bits: int, radius: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
    """All masks (m, ⌈K/64⌉) with at most ``radius`` of K bits set, and how many each sets."""
    single = words(np.packbits(np.eye(bits, dtype=bool), axis=1))
    level = np.zeros((1, single.shape[1]), np.uint64)
    levels = [level]
    for distance in range(1, min(radius, bits) + 1):
        # Masks of one level are ordered by their first bit, so those that begin after bit i are
        # the last C(K - i - 1, distance - 1) of them.
        later = [math.comb(bits - bit - 1, distance - 1) for bit in range(bits)]
        level = np.concatenate(
            [single[bit] | level[len(level) - later[bit] :] for bit in range(bits)]
        )
        levels.append(level)
    distances = np.repeat(np.arange(len(levels), dtype=np.int32), [len(part) for part in levels])
    return np.concatenate(levels), distances
