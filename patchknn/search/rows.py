"""Rows of a snapshot by their global number, read from whichever shard holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.hamming.exact import l2_distances
from patchknn.search.groups import GroupNumbers, group_keys

RowNumbers = npt.NDArray[np.int64]


class RowReader:
    """Reads columns of many rows at once; owns the shards' boundaries and what groups they have."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._first_rows = snapshot.shards.first_rows
        self._groups = GroupNumbers()

    def by_shard(
        self, rows: RowNumbers
    ) -> Iterator[tuple[Shard, npt.NDArray[np.intp], RowNumbers]]:
        """Split rows (m,) by shard: the shard, positions in ``rows``, rows within it."""
        if len(rows) == 0:
            return
        numbers = np.searchsorted(self._first_rows, rows, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        edges = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        for positions in np.split(order, edges):
            shard = self.snapshot.shards[int(numbers[positions[0]])]
            yield shard, positions, rows[positions] - shard.first_row

    def are_live(self, rows: RowNumbers) -> npt.NDArray[np.bool_]:
        """Whether each of rows (m,) is there still."""
        live = np.ones(len(rows), bool)
        if self.snapshot.has_removed:
            for shard, positions, local in self.by_shard(rows):
                live[positions] = shard.is_live(local)
        return live

    def labels(self, rows: RowNumbers) -> npt.NDArray[np.int32]:
        """The classes of rows (m,) as numbers of the snapshot's, −1 where there is none."""
        labels = np.empty(len(rows), np.int32)
        for shard, positions, local in self.by_shard(rows):
            labels[positions] = shard.labels_at(local)
        return labels

    def distances(self, rows: RowNumbers, feature: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """L2 distances of the features of rows (m,) to ``feature`` (D,)."""
        distances = np.empty(len(rows), np.float64)
        for shard, positions, local in self.by_shard(rows):
            distances[positions] = l2_distances(shard.features, feature, local)
        return distances

    def tie_keys(self, rows: RowNumbers) -> list[tuple[str, int, int, int]]:
        """What orders rows of equal distance: source name, y, x (and the row, to be total)."""
        keys: list[tuple[str, int, int, int]] = [("", 0, 0, 0)] * len(rows)
        for shard, positions, local in self.by_shard(rows):
            sources, inverse = np.unique(shard.source[local], return_inverse=True)
            names = [shard.source_names[int(source)] for source in sources]
            coords = shard.coords[local].tolist()
            for position, which, (x, y) in zip(
                positions.tolist(), inverse.tolist(), coords, strict=True
            ):
                keys[position] = (names[which], y, x, int(rows[position]))
        return keys

    def groups(self, rows: RowNumbers, kind: str, numbering: dict[object, int]) -> RowNumbers:
        """The slide or patient of rows (m,) as numbers that ``numbering`` hands out.

        They are as few as there are groups among the rows it was asked for.
        """
        groups = np.empty(len(rows), np.int64)
        for shard, positions, local in self.by_shard(rows):
            groups[positions] = self._groups.of(shard, shard.source[local], kind)
        different, inverse = np.unique(groups, return_inverse=True)
        numbers = [numbering.setdefault(one, len(numbering)) for one in different.tolist()]
        return np.array(numbers, np.int64)[inverse]

    def group_keys(self, rows: RowNumbers, kind: str) -> list[tuple[str, str]]:
        """The slide or patient of rows (m,) in words: the same wherever they are read."""
        keys = [("", "")] * len(rows)
        for shard, positions, local in self.by_shard(rows):
            found = group_keys(shard, shard.source_at(local), kind)
            for position, key in zip(positions.tolist(), found, strict=True):
                keys[position] = key
        return keys
