"""Shards as a sequence of which each is opened when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from patchknn.archive.shard import Shard

Int64 = npt.NDArray[np.int64]


class Shards(Sequence[Shard]):
    """S shards of a snapshot; a writer needs a few of thousands.

    ``first_rows`` (S,) int64: where in the snapshot each begins; ``lengths`` (S,) int64.
    """

    def __init__(self, open_one: Callable[[int], Shard], first_rows: Int64, lengths: Int64) -> None:
        self.first_rows = first_rows
        self.lengths = lengths
        self._open = open_one
        self._opened: dict[int, Shard] = {}

    def select(self, places: Int64) -> Shards:
        """Those at ``places`` (m,), in that order."""
        numbers = places.tolist()
        return Shards(lambda at: self[numbers[at]], self.first_rows[places], self.lengths[places])

    @property
    def opened(self) -> Mapping[str, Shard]:
        """Those that were asked for, by uuid."""
        return {shard.uuid: shard for shard in self._opened.values()}

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, at: int) -> Shard: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Shard]: ...
    def __getitem__(self, at: int | slice) -> Shard | Sequence[Shard]:
        """Open one, or some."""
        if isinstance(at, slice):
            return [self[number] for number in range(len(self))[at]]
        number = range(len(self))[at]
        shard = self._opened.get(number)
        if shard is None:
            shard = self._opened[number] = self._open(number)
        return shard

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))


def firsts(lengths: Int64) -> Int64:
    """Where each of S pieces begins, and where the last ends: (S + 1,) int64."""
    result = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=result[1:])
    return result
