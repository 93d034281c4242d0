"""Tables from 64-bit hashes to numbers: sorted by hash, found by the hash's first bits.

A table holds no hashes: whoever looks something up compares the few candidates with the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.array_files import ArrayFile
from patchknn.archive.index.layout import ArrayRecord

Hashes = npt.NDArray[np.uint64]
Chunks = Iterable[tuple[Hashes, npt.NDArray[np.uint32]]]
_MAX_PREFIX = 30
_IN_MEMORY = 1 << 23  # entries that are sorted at once: some 200 MB in passing


@dataclass(frozen=True)
class HashTable:
    """``entries`` (n,) uint32 by hash; those of prefix v lie from ``bounds[v]`` to ``bounds[v+1]``.

    ``limit``: every entry is smaller. Both arrays may be mapped, and are checked as they are used.
    """

    bounds: npt.NDArray[np.uint32]
    entries: npt.NDArray[np.uint32]
    limit: int

    def candidates(self, hashes: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Every pair (number of the hash (m,), entry (m,)) that may belong together.

        Raises ValueError where the table holds a value out of range.
        """
        prefix = (hashes >> np.uint64(64 - prefix_bits(len(self.entries)))).astype(np.int64)
        starts = self.bounds[prefix].astype(np.int64)
        lengths = self.bounds[prefix + 1].astype(np.int64) - starts
        if len(starts) and (lengths.min() < 0 or (starts + lengths).max() > len(self.entries)):
            message = "a hash table's bounds are out of range"
            raise ValueError(message)
        numbers = np.repeat(np.arange(len(hashes)), lengths)
        before = np.cumsum(lengths) - lengths
        places = np.arange(len(numbers)) + np.repeat(starts - before, lengths)
        found = self.entries[places].astype(np.int64)
        if len(found) and found.max() >= self.limit:
            message = "a hash table's entry is out of range"
            raise ValueError(message)
        return numbers, found


def prefix_bits(n_entries: int) -> int:
    """How many bits of a hash choose its bucket: one or two entries each."""
    return min(max(n_entries.bit_length() - 1, 1), _MAX_PREFIX)


def mixed(*values: npt.NDArray[Any]) -> Hashes:
    """A hash (n,) of columns (n,) of 64-bit integers: splitmix64, one column after the other."""
    total = np.zeros(len(values[0]), np.uint64)
    for column in values:
        total = total + np.asarray(column).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total ^= total >> np.uint64(31)
    return total


def write_hash_table(
    folder: Path, name: str, chunks: Chunks, n_entries: int, *, in_memory: int = _IN_MEMORY
) -> dict[str, ArrayRecord]:
    """Write ``<name>_bounds`` and ``<name>_entries`` of at most ``n_entries`` (hash, entry) pairs.

    Where they are many they are first spread over files by their first bits.
    """
    parts = 0
    while n_entries >> parts > in_memory:
        parts += 1
    spread = _spread(folder, name, chunks, parts) if parts else None
    if spread is None:
        whole = _joined(chunks)
        found, ranges = len(whole[0]), iter([whole])
        del whole
    else:
        found, ranges = spread
        if found <= in_memory:
            parts, ranges = 0, iter([_joined(ranges)])
    prefix = prefix_bits(found)
    with (
        ArrayFile(folder, f"{name}_entries", "<u4") as entries_file,
        ArrayFile(folder, f"{name}_bounds", "<u4") as bounds_file,
    ):
        bounds_file.append(np.zeros(1, np.uint32))
        first, step = 0, max((1 << prefix) >> parts, 1)
        for hashes, entries in ranges:
            order = np.argsort(hashes, kind="stable")
            entries_file.append(entries[order])
            buckets = (hashes[order] >> np.uint64(64 - prefix)).astype(np.int64) - first
            counts = np.bincount(buckets, minlength=step)
            bounds_file.append(_ends(entries_file.length, counts))
            first += step
        return {f"{name}_entries": entries_file.record, f"{name}_bounds": bounds_file.record}


def _ends(total: int, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    ends: npt.NDArray[np.int64] = np.cumsum(counts)
    return ends + int(total - ends[-1])


def _joined(parts: Chunks) -> tuple[Hashes, npt.NDArray[np.uint32]]:
    gathered = list(parts)
    hashes = np.concatenate([part for part, _ in gathered] or [np.zeros(0, np.uint64)])
    entries = np.concatenate([part for _, part in gathered] or [np.zeros(0, np.uint32)])
    return hashes, entries


def _spread(
    folder: Path, name: str, chunks: Chunks, parts: int
) -> tuple[int, Iterator[tuple[Hashes, npt.NDArray[np.uint32]]]]:
    kind = np.dtype([("hash", "<u8"), ("entry", "<u4")])
    paths = [folder / f".spill-{name}-{number}" for number in range(1 << parts)]
    files = [path.open("xb") for path in paths]
    found = 0
    try:
        for hashes, entries in chunks:
            found += len(hashes)
            where = (hashes >> np.uint64(64 - parts)).astype(np.int64)
            order = np.argsort(where, kind="stable")
            pairs = np.empty(len(hashes), kind)
            pairs["hash"], pairs["entry"] = hashes[order], entries[order]
            ends = np.searchsorted(where[order], np.arange(len(files) + 1))
            for file, start, stop in zip(files, ends[:-1], ends[1:], strict=True):
                file.write(pairs[start:stop].view(np.uint8).data)
    finally:
        for file in files:
            file.close()

    def ranges() -> Iterator[tuple[Hashes, npt.NDArray[np.uint32]]]:
        for path in paths:
            pairs = np.fromfile(path, kind)
            path.unlink()
            yield np.ascontiguousarray(pairs["hash"]), np.ascontiguousarray(pairs["entry"])

    return found, ranges()
