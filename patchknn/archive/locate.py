"""From patch ids to rows, for one id or a million; what was removed is not found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.shard import Shard
from patchknn.archive.strings import name_key

_WITH_POSITION = re.compile(r"(.+)@(-?[0-9]{1,19})_(-?[0-9]{1,19})", re.DOTALL)
_PLAIN = (-1, -1)
_LIMIT = 1 << 63  # of int64

# Which of those asked for, the shard that has it, and the number of the source in that shard.
SourcePlace = tuple[int, Shard, int]


class Wanted(NamedTuple):
    """Patches to be found: m source names with their ``name_key`` (m,) and x, y (m, 2) int64."""

    names: list[str]
    keys: npt.NDArray[np.uint64]
    coords: npt.NDArray[np.int64]


class Identities:
    """Patch ids taken apart.

    ``name@x_y`` is a patch of a slide, or else a plain image that happens to be called so: it is
    looked up as both.
    """

    def __init__(self, identities: Sequence[str]) -> None:
        self._count = len(identities)
        names, coords, owners = list(identities), [_PLAIN] * len(identities), []
        for number, identity in enumerate(identities):
            match = _WITH_POSITION.fullmatch(identity)
            x, y = (int(match[2]), int(match[3])) if match else _PLAIN
            if match and -_LIMIT <= min(x, y) <= max(x, y) < _LIMIT:
                names.append(match[1])
                coords.append((x, y))
                owners.append(number)
        self._owners = np.array(owners, np.int64)
        keys = np.array([name_key(name) for name in names], np.uint64)
        self.wanted = Wanted(names, keys, np.array(coords, np.int64).reshape(-1, 2))

    def chosen(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of the rows of ``wanted``, −1 for none, those of the identities."""
        result = rows[: self._count].copy()
        patches = rows[self._count :]
        found = patches >= 0
        result[self._owners[found]] = patches[found]
        return result


def wanted_rows(shards: Sequence[Shard], wanted: Wanted) -> npt.NDArray[np.int64]:
    """Rows (m,) int64 of wanted patches in these shards, −1 where they have none."""
    rows = np.full(len(wanted.names), -1, np.int64)
    for shard in shards:
        by_source: dict[int, list[int]] = {}
        for number, _, source in named_in([shard], wanted.names, wanted.keys):
            by_source.setdefault(source, []).append(number)
        if by_source:
            _fill(shard, by_source, wanted.coords, rows)
    return rows


def named_in(
    shards: Sequence[Shard], names: Sequence[str], keys: npt.NDArray[np.uint64]
) -> Iterator[SourcePlace]:
    """Where in these shards the sources with these names (and ``name_key``) are."""
    for shard in shards:
        place = np.searchsorted(shard.source_keys, keys)
        place[place == shard.n_sources] = 0
        for hit in np.flatnonzero(shard.source_keys[place] == keys).tolist():
            source = shard.source_number(names[hit], int(keys[hit]))
            if source is not None and shard.has_live(np.array([source])).all():
                yield hit, shard, source


def with_quickhash_in(
    shards: Sequence[Shard], quickhashes: Sequence[bytes]
) -> Iterator[SourcePlace]:
    """Where in these shards the sources with these contents are."""
    wanted = np.frombuffer(b"".join(quickhashes), np.uint64).reshape(-1, 2)
    for shard in shards:
        stored = np.ascontiguousarray(shard.source_quickhashes).view(np.uint64)
        for number, quickhash in enumerate(wanted):
            found = np.flatnonzero((stored == quickhash).all(axis=1))
            for source in found[shard.has_live(found)].tolist():
                yield number, shard, source


def of_patients_in(shards: Sequence[Shard], patients: Sequence[str]) -> Iterator[SourcePlace]:
    """Where in these shards the sources of these patients are."""
    for shard in shards:
        for number, patient in enumerate(patients):
            found = shard.patients.equal_to(patient)
            for source in found[shard.has_live(found)].tolist():
                yield number, shard, source


def _fill(
    shard: Shard,
    wanted: dict[int, list[int]],
    coords: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> None:
    is_wanted = np.zeros(shard.n_sources, bool)
    is_wanted[list(wanted)] = True
    # One pass over the source column finds the rows of all wanted sources.
    candidates = np.flatnonzero(is_wanted[shard.source])
    candidates = candidates[shard.is_live(candidates)]
    sources = shard.source[candidates]
    order = np.argsort(sources, kind="stable")
    candidates, sources = candidates[order], sources[order]
    for number, hits in wanted.items():
        start, stop = np.searchsorted(sources, [number, number + 1])
        own = candidates[start:stop]
        at = dict(zip(map(tuple, shard.coords[own].tolist()), own.tolist(), strict=True))
        for hit in hits:
            local = at.get(tuple(coords[hit].tolist()))
            if local is not None and rows[hit] < 0:
                rows[hit] = shard.first_row + local
