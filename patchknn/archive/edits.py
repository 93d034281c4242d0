"""What the changes of a snapshot make of one shard: rows that are gone, labels that are others."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.change import Change, open_change
from patchknn.archive.manifest import REMOVE, Manifest
from patchknn.archive.sealed import damage

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class _Part(NamedTuple):
    """What one change says of one shard; ``classes`` maps its labels to the snapshot's."""

    change: Change
    number: int
    classes: Int32


class ShardEdits:
    """The removals and new labels of one shard of n rows, in the order they were made.

    Read when first asked for; DamageError where a change names a row that the shard lacks.
    """

    def __init__(self, parts: Iterable[_Part], rows: int) -> None:
        self._parts = tuple(parts)
        self._rows = rows

    @property
    def uuids(self) -> tuple[str, ...]:
        """The changes that touch the shard, in their order."""
        return tuple(part.change.head.uuid for part in self._parts)

    @property
    def is_any(self) -> bool:
        """Whether a change touches the shard."""
        return bool(self._parts)

    @cached_property
    def removed(self) -> Int64:
        """Rows (m,) int64 of the shard that are gone, ascending."""
        removals = [self._rows_of(part) for part in self._parts if _removes(part)]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *removals]))

    @property
    def removed_rows_named(self) -> int:
        """How many rows its removals name, those that two of them name twice."""
        return sum(len(self._rows_of(part)) for part in self._parts if _removes(part))

    @cached_property
    def removed_mask(self) -> Mask:
        """Whether each row (n,) is gone."""
        mask = np.zeros(self._rows, bool)
        mask[self.removed] = True
        return mask

    @cached_property
    def dead_sources(self) -> Int32:
        """Sources (m,) int32 of the shard without a live row, ascending."""
        dead = [part.change.dead_of(part.number) for part in self._parts if _removes(part)]
        return np.unique(np.concatenate([np.zeros(0, np.int32), *dead]))

    @cached_property
    def relabelled(self) -> tuple[Int64, Int32]:
        """Rows (m,) int64 with another label than the shard's, ascending, and that label (m,)."""
        rows, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        for part in self._parts:
            if not _removes(part):
                rows.append(self._rows_of(part))
                labels.append(part.classes[part.change.labels_of(part.number)])
        every, last = np.concatenate(rows)[::-1], np.concatenate(labels)[::-1]
        unique, first = np.unique(every, return_index=True)  # the last of each row counts
        return unique, last[first]

    def with_labels(self, labels: Int32) -> Int32:
        """The labels (n,) of all rows, given the shard's own."""
        rows, changed = self.relabelled
        if not len(rows):
            return labels
        result = labels.copy()
        result[rows] = changed
        return result

    def with_labels_at(self, rows: Int64, labels: Int32) -> Int32:
        """The labels (m,) of some rows, given the shard's own."""
        known, changed = self.relabelled
        if not len(known):
            return labels
        place = np.searchsorted(known, rows).clip(max=len(known) - 1)
        return np.where(known[place] == rows, changed[place], labels)

    def _rows_of(self, part: _Part) -> Int64:
        rows = part.change.rows_of(part.number)
        if len(rows) and rows[-1] >= self._rows:
            problem = "it names a row that its shard lacks"
            raise part.change.damaged(problem)
        return rows.astype(np.int64)


NO_EDITS = ShardEdits((), 0)


def edits_of(path: Path, manifest: Manifest) -> dict[str, ShardEdits]:
    """The edits of the shards of a snapshot, by uuid; shards without any are left out.

    Raises DamageError where a change is damaged, or names a shard or class that the snapshot
    lacks.
    """
    positions = manifest.shards.positions if manifest.changes else {}
    parts: dict[str, list[_Part]] = {}
    for entry in manifest.changes:
        change = open_change(path, entry)
        try:
            numbers = [manifest.classes.index(name) for name in change.head.classes]
        except ValueError:
            raise damage(
                path, f"{change.file}: it names a class that the manifest lacks."
            ) from None
        classes = np.array([*numbers, -1], np.int32)  # the last entry is where −1 points
        for number, uuid in enumerate(change.shards):
            if uuid not in positions:
                raise damage(path, f"{change.file}: it names a shard that the manifest lacks.")
            parts.setdefault(uuid, []).append(_Part(change, number, classes))
    rows = manifest.shards.rows
    return {uuid: ShardEdits(some, rows[positions[uuid]]) for uuid, some in parts.items()}


def _removes(part: _Part) -> bool:
    return part.change.head.kind == REMOVE
