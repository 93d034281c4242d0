"""The hash tables of a segment: patch ids, and sources by name, quickhash and patient.

They know all rows that the shards hold; what a change removed is left out of what they find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.codes import open_bounds
from patchknn.archive.index.hash_table import HashTable, mixed, prefix_bits
from patchknn.archive.index.layout import SegmentError, SegmentHead, open_array
from patchknn.archive.locate import SourcePlace, Wanted
from patchknn.archive.shard import Shard
from patchknn.archive.shards import Shards, firsts
from patchknn.archive.strings import encode, name_key

Found = Iterator[SourcePlace]
ID, NAME, QUICKHASH, PATIENT = "id", "source_name", "source_quickhash", "source_patient"


class Lookups:
    """The tables of one segment, mapped.

    Its methods raise ValueError where a table holds a value out of range, DamageError where a
    shard does.
    """

    def __init__(
        self, folder: Path, head: SegmentHead, shards: Shards, sources: npt.NDArray[np.int64]
    ) -> None:
        """``sources`` (S,) of each shard. Raise SegmentError where a table does not fit."""
        self._shards = shards
        self._sources = sources
        self._first_rows = firsts(shards.lengths)
        self._first_sources = firsts(sources)
        n_rows, n_sources = int(self._first_rows[-1]), int(self._first_sources[-1])
        self._ids = _open(folder, head, ID, n_rows, n_rows)
        self._names = _open(folder, head, NAME, n_sources, n_sources)
        self._quickhashes = _open(folder, head, QUICKHASH, n_sources, n_sources)
        self._patients = _open(folder, head, PATIENT, n_sources, None)

    def rows_of(self, wanted: Wanted) -> npt.NDArray[np.int64]:
        """Rows (m,) of the snapshot that hold these patches, −1 where this segment has none."""
        x, y = wanted.coords.T
        numbers, found = self._ids.candidates(mixed(wanted.keys, x, y))
        result = np.full(len(wanted.names), -1, np.int64)
        for shard, places, rows in self._by_shard(self._first_rows, found):
            number = numbers[places]
            sources = shard.source_at(rows)
            same = shard.source_keys[sources] == wanted.keys[number]
            same &= (shard.coords[rows] == wanted.coords[number]).all(axis=1)
            same &= shard.is_live(rows)
            for place in np.flatnonzero(same).tolist():
                which = int(number[place])
                name = shard.source_names.raw(int(sources[place]))
                if name == encode(wanted.names[which]) and result[which] < 0:
                    result[which] = shard.first_row + int(rows[place])
        return result

    def named(self, names: Sequence[str], keys: npt.NDArray[np.uint64]) -> Found:
        """(number of the name, shard, number of the source) of the sources with these names."""
        numbers, found = self._names.candidates(mixed(keys))
        for shard, places, sources in self._by_shard(self._first_sources, found):
            same = shard.source_keys[sources] == keys[numbers[places]]
            same &= shard.has_live(sources)
            for place in np.flatnonzero(same).tolist():
                which, source = int(numbers[places[place]]), int(sources[place])
                if shard.source_names.raw(source) == encode(names[which]):
                    yield which, shard, source

    def with_quickhash(self, quickhashes: Sequence[bytes]) -> Found:
        """(number, shard, number of the source) of the sources with these contents."""
        wanted = np.frombuffer(b"".join(quickhashes), "<u8").reshape(-1, 2)
        numbers, found = self._quickhashes.candidates(mixed(*wanted.T))
        for shard, places, sources in self._by_shard(self._first_sources, found):
            stored = np.ascontiguousarray(shard.source_quickhashes[sources]).view("<u8")
            same = (stored == wanted[numbers[places]]).all(axis=1) & shard.has_live(sources)
            for place in np.flatnonzero(same).tolist():
                yield int(numbers[places[place]]), shard, int(sources[place])

    def of_patients(self, patients: Sequence[str]) -> Found:
        """(number, shard, number of the source) of the sources of these patients."""
        keys = np.array([name_key(patient) for patient in patients], np.uint64)
        numbers, found = self._patients.candidates(mixed(keys))
        for shard, places, sources in self._by_shard(self._first_sources, found):
            stored, live = shard.patients.take(sources), shard.has_live(sources)
            for place, patient in enumerate(stored):
                which = int(numbers[places[place]])
                if live[place] and patient == patients[which]:
                    yield which, shard, int(sources[place])

    def _by_shard(
        self, starts: npt.NDArray[np.int64], found: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Shard, npt.NDArray[np.intp], npt.NDArray[np.int64]]]:
        if not len(found):
            return
        owners = np.searchsorted(starts, found, side="right") - 1
        order = np.argsort(owners, kind="stable")
        edges = np.flatnonzero(np.diff(owners[order])) + 1
        for places in np.split(order, edges):
            owner = int(owners[places[0]])
            shard = self._shards[owner]
            if shard.n_sources != self._sources[owner]:
                message = f"shard {shard.uuid} has {shard.n_sources} sources"
                raise ValueError(message)
            yield shard, places, found[places] - starts[owner]


def _open(folder: Path, head: SegmentHead, name: str, limit: int, count: int | None) -> HashTable:
    entries = open_array(folder, head, f"{name}_entries", "<u4", (count if count else -1,))
    if len(entries) > limit:
        message = f"The table {name} of {folder} has more entries than there can be."
        raise SegmentError(message)
    buckets = 1 << prefix_bits(len(entries))
    bounds = open_bounds(folder, head, f"{name}_bounds", buckets, len(entries))
    checks = None
    if name != ID:  # to look a patch up reads its shard in any case
        checks = open_array(folder, head, f"{name}_checks", "<u4", (len(entries),))
    return HashTable(bounds, entries, limit, checks)
