"""Tables from 64-bit hashes to numbers: sorted and found by the hash's first bits.

A table holds no hashes: whoever looks something up compares the few candidates with the data.
Where that is in thousands of shards, 32 bits of each hash tell nearly all wrong candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
_MAX_PREFIX = 30


class HashTable(NamedTuple):
    """``entries`` (n,) uint32; those of prefix v, ascending, from ``bounds[v]`` to ``bounds[v+1]``.

    ``limit``: every entry is smaller. ``checks`` (n,) uint32 are the last bits of the entries'
    hashes, None where they are not kept. All may be mapped, and are checked as they are used.
    """

    bounds: npt.NDArray[np.uint32]
    entries: npt.NDArray[np.uint32]
    limit: int
    checks: npt.NDArray[np.uint32] | None = None

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
        if self.checks is not None:
            same = self.checks[places] == last_bits(hashes[numbers])
            numbers, places = numbers[same], places[same]
        found = self.entries[places].astype(np.int64)
        if len(found) and found.max() >= self.limit:
            message = "a hash table's entry is out of range"
            raise ValueError(message)
        return numbers, found


def prefix_bits(n_entries: int) -> int:
    """How many bits of a hash choose its bucket: one or two entries each."""
    return min(max(n_entries.bit_length() - 1, 1), _MAX_PREFIX)


def last_bits(hashes: Hashes) -> npt.NDArray[np.uint32]:
    """What a table keeps of hashes (n,) to tell them apart."""
    return (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def mixed(*values: npt.NDArray[Any]) -> Hashes:
    """A hash (n,) of columns (n,) of 64-bit integers: splitmix64, one column after the other."""
    total = np.zeros(len(values[0]), np.uint64)
    for column in values:
        total = total + np.asarray(column).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total ^= total >> np.uint64(31)
    return total
