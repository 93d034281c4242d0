"""The table of distinct codes where there are no C kernels: the same answers by NumPy."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.hamming.parts import part_values, windows

Words = npt.NDArray[np.uint64]
Found = tuple[npt.NDArray[Any], ...]

_AUTO, _SCAN, _PROBE, _MULTI = -1, 0, 1, 2
# In units of comparing one code in a scan (about 2 ns), measured at 1e6 codes of 64 bits.
_WALK_COST, _LOOKUP_COST, _ENTRY_COST = 30_000.0, 15.0, 10.0
_BLOCK_WORDS = 1 << 18


class _Answer(NamedTuple):
    codes: npt.NDArray[np.int64]
    distances: npt.NDArray[np.uint16]
    work: tuple[int, int, int, int]


class NumpyCodeTable:
    """The methods of ``_kernels.CodeTable``, over the same arrays (CodeArrays)."""

    def __init__(self, arrays: Any) -> None:
        self._bits: int = arrays.bits
        self._codes: Words = arrays.codes
        self._bounds: npt.NDArray[np.uint32] = arrays.bounds
        self._parts = arrays.parts
        n_codes = len(self._codes)
        if self._bounds[0] != 0:
            message = "bounds do not begin at 0"
            raise ValueError(message)
        for number, part in enumerate(self._parts):
            fits = len(part.bounds) == (1 << part.width) + 1 and part.bounds[-1] == n_codes
            if number:
                fits &= len(part.order) == n_codes and len(part.window) == n_codes
            if not fits or part.bounds[0] != 0:
                message = f"part {number} does not hold all codes"
                raise ValueError(message)

    def ball(self, queries: Words, radius: int, path: int, _defer: int) -> Found:
        """See CodeTable.ball; deferring is of no use here."""
        radius = self._radius(radius)
        return _packed([self._ball(query, radius, path) for query in queries])

    def scan(self, queries: Words, radius: int, first: int, last: int) -> Found:
        """See CodeTable.scan; codes ``first`` to ``last`` (exclusive)."""
        radius = self._radius(radius)
        return _packed([self._scanned(query, radius, first, last) for query in queries])

    def nearest(self, queries: Words, k: int, max_radius: int) -> Found:
        """See CodeTable.nearest; the radii come last."""
        if k < 1:
            message = f"{k} nearest cannot be asked for"
            raise ValueError(message)
        found = [self._nearest(query, k, self._radius(max_radius)) for query in queries]
        radii = np.array([radius for _, radius in found], np.int32)
        return (*_packed([answer for answer, _ in found]), radii)

    def _radius(self, radius: int) -> int:
        if radius < 0:
            message = f"a radius of {radius} is less than 0"
            raise ValueError(message)
        return min(radius, self._bits)

    def _ball(self, query: Words, radius: int, path: int) -> _Answer:
        if path == _SCAN or not self._parts:
            return self._scanned(query, radius, 0, len(self._codes))
        reach = (radius,) if path == _PROBE else self._reach(radius)
        answer = None
        if path != _AUTO:
            answer = self._walked(query, radius, reach, path)
        elif self._cost(reach) <= self._codes.size:
            answer = self._walked(query, radius, reach, _MULTI, self._codes.size)
        return answer or self._scanned(query, radius, 0, len(self._codes))

    def _nearest(self, query: Words, k: int, max_radius: int) -> tuple[_Answer, int]:
        radius = min(len(self._parts) - 1, max_radius) if self._parts else self._bits
        answer, reached = None, None
        while self._parts and reached is None and radius <= max_radius:
            reach = self._reach(radius)
            if self._cost(reach) > self._codes.size:
                break
            answer = self._walked(query, radius, reach, _MULTI, self._codes.size)
            if answer is None:
                break
            reached = self._reaching(answer, k, radius)
            if reached is None and radius == max_radius:
                return answer, -1
            radius = min(radius + 1, max_radius)
        if answer is None or reached is None:
            answer = self._scanned(query, max_radius, 0, len(self._codes))
            reached = self._reaching(answer, k, max_radius)
        if reached is None:
            return answer, -1
        near = answer.distances <= reached
        return _Answer(answer.codes[near], answer.distances[near], answer.work), reached

    def _reaching(self, answer: _Answer, k: int, radius: int) -> int | None:
        starts = self._bounds[answer.codes].astype(np.int64)
        stops = self._bounds[answer.codes + 1].astype(np.int64)
        _checked((starts < stops) & (stops <= int(self._bounds[-1])))
        counts = np.bincount(answer.distances, weights=stops - starts, minlength=radius + 1)
        enough = np.flatnonzero(np.cumsum(counts) >= k)
        return int(enough[0]) if len(enough) else None

    def _reach(self, radius: int) -> tuple[int, ...]:
        each, more = divmod(radius, len(self._parts))
        return tuple(each - (number > more) for number in range(len(self._parts)))

    def _cost(self, reach: tuple[int, ...]) -> float:
        lookups = 0
        for part, far in zip(self._parts, reach, strict=False):
            for level in range(far + 1):
                lookups += math.comb(part.width, level)
        return _WALK_COST + lookups * _LOOKUP_COST

    def _scanned(self, query: Words, radius: int, first: int, last: int) -> _Answer:
        step = max(1, _BLOCK_WORDS // self._codes.shape[1])
        codes, distances = [np.zeros(0, np.int64)], [np.zeros(0, np.uint16)]
        for start in range(first, last, step):
            found = _distances(self._codes[start : min(start + step, last)], query)
            near = np.flatnonzero(found <= radius)
            codes.append(near + start)
            distances.append(found[near])
        work = (_SCAN, 0, 0, last - first)
        return _Answer(np.concatenate(codes), np.concatenate(distances), work)

    def _walked(
        self, query: Words, radius: int, reach: tuple[int, ...], path: int, budget: float = 0
    ) -> _Answer | None:
        """Multi-index hashing with each part searched as far as ``reach``; see _kernels_multi.c.

        None where the entries are more than the ``budget`` (0: any) pays for.
        """
        buckets = []
        lookups = entries = 0
        for number, (part, far) in enumerate(zip(self._parts, reach, strict=False)):
            if far < 0:
                continue
            own = int(part_values(part, query[None])[0])
            values = _masks(part.width, min(far, part.width)) ^ own
            firsts = part.bounds[values].astype(np.int64)
            lasts = part.bounds[values + 1].astype(np.int64)
            _checked((firsts <= lasts) & (lasts <= len(self._codes)))
            lookups += len(values)
            entries += int((lasts - firsts).sum())
            buckets.append((number, firsts, lasts - firsts))
        if budget and lookups * _LOOKUP_COST + entries * _ENTRY_COST > budget:
            return None
        codes, distances = [np.zeros(0, np.int64)], [np.zeros(0, np.uint16)]
        for number, firsts, sizes in buckets:
            found = self._compared(query, radius, number, firsts, sizes)
            away = _distances(self._codes[found], query)
            fresh = away <= radius
            for earlier in range(number):
                part = self._parts[earlier]
                differing = part_values(part, self._codes[found]) ^ part_values(part, query[None])
                fresh &= np.bitwise_count(differing) > reach[earlier]
            codes.append(found[fresh])
            distances.append(away[fresh])
        work = (path, lookups, entries, 0)
        return _Answer(np.concatenate(codes), np.concatenate(distances), work)

    def _compared(
        self,
        query: Words,
        radius: int,
        number: int,
        firsts: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Codes in buckets of one part whose windows lie within the radius."""
        part = self._parts[number]
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        entries = np.arange(total) + np.repeat(firsts - (ends - sizes), sizes)
        if part.order is None:
            return np.asarray(entries)
        target = windows(self._bits, part.first_bit, query[None])
        near = entries[np.bitwise_count(part.window[entries] ^ target) <= radius]
        found = part.order[near].astype(np.int64)
        _checked(found < len(self._codes))
        return np.asarray(found)


def _distances(codes: Words, query: Words) -> npt.NDArray[np.uint16]:
    counts = np.bitwise_count(codes ^ query)
    away = counts[:, 0] if counts.shape[1] == 1 else counts.sum(axis=1)
    return np.asarray(away.astype(np.uint16))


def _checked(fits: npt.NDArray[np.bool_]) -> None:
    if not fits.all():
        message = "the index of the codes holds a value out of range"
        raise ValueError(message)


@functools.lru_cache(maxsize=64)
def _masks(width: int, reach: int) -> npt.NDArray[np.int64]:
    """All numbers of ``width`` bits of which at most ``reach`` are set."""
    level = np.zeros(1, np.int64)
    levels = [level]
    for _ in range(reach):
        level = np.concatenate([level[level < 1 << bit] | 1 << bit for bit in range(width)])
        levels.append(level)
    return np.concatenate(levels)


def _packed(answers: list[_Answer]) -> Found:
    codes = [answer.codes.astype(np.uint32) for answer in answers]
    offsets = np.cumsum([0] + [len(found) for found in codes]).astype(np.int64)
    return (
        offsets,
        np.concatenate([np.zeros(0, np.uint32), *codes]),
        np.concatenate([np.zeros(0, np.uint16), *[answer.distances for answer in answers]]),
        np.array([answer.work for answer in answers], np.int64).reshape(-1, 4),
    )
