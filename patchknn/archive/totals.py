"""How much of what a snapshot holds, kept in its manifest, so that nobody has to count.

A change costs what it changes: ten million rows are not looked at because one slide was added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from patchknn.archive.description import ShardDescription
    from patchknn.archive.shard import Shard
    from patchknn.archive.snapshot import Snapshot

Labels = Counter[str | None]


class Totals(NamedTuple):
    """Live rows by class and without one, known patients, files' bytes and shards by format."""

    classes: dict[str, int]
    unlabelled: int
    patients: int
    bytes: int
    formats: dict[str, int]

    def changed(
        self,
        labels: Mapping[str | None, int],
        *,
        patients: int = 0,
        shards: Iterable[ShardDescription] = (),
        without: Iterable[ShardDescription] = (),
    ) -> Totals:
        """With so many more (or fewer) rows of labels, patients, and other shards."""
        classes, formats = Counter(self.classes), Counter(self.formats)
        size = self.bytes
        for name, count in labels.items():
            if name is not None:
                classes[name] += count
        for sign, some in ((1, shards), (-1, without)):
            for shard in some:
                formats[shard.container] += sign
                size += sign * bytes_of(shard)
        return Totals(
            classes={name: count for name, count in classes.items() if count},
            unlabelled=self.unlabelled + labels.get(None, 0),
            patients=self.patients + patients,
            bytes=size,
            formats={name: count for name, count in formats.items() if count},
        )


NOTHING = Totals({}, 0, 0, 0, {})


def bytes_of(shard: ShardDescription) -> int:
    """The bytes of a shard's files."""
    return sum(record.size for record in shard.files)


def count(snapshot: Snapshot) -> Totals:
    """The totals of a snapshot, by looking at all of it."""
    labels: Labels = Counter()
    patients: set[str | None] = set()
    for shard in snapshot.shards:
        labels += labels_of(shard, snapshot.classes)
        if len(shard.edits.dead_sources):
            patients.update(shard.patients.take(shard.live_sources()))
        else:
            patients.update(shard.patients.distinct())
    descriptions = [shard.description for shard in snapshot.shards]
    return NOTHING.changed(labels, patients=len(patients - {None}), shards=descriptions)


def totals_of(snapshot: Snapshot) -> Totals:
    """What its manifest says, or, where that is of an earlier version, a count."""
    known = snapshot.manifest.totals
    return count(snapshot) if known is None else known


def labels_of(
    shard: Shard, classes: Sequence[str], rows: np.ndarray[Any, np.dtype[np.int64]] | None = None
) -> Labels:
    """How many live rows, or of these ``rows``, have each label."""
    if rows is None:
        labels = shard.labels[shard.live_rows()] if shard.edits.is_any else shard.labels
    else:
        labels = shard.labels_at(rows)
    counts = np.bincount(labels + 1, minlength=len(classes) + 1).tolist()
    return Counter({name: n for name, n in zip((None, *classes), counts, strict=True) if n})


def new_patients(snapshot: Snapshot, patients: Iterable[str | None]) -> int:
    """How many of these patients a snapshot has no live source of."""
    wanted = sorted({patient for patient in patients if patient is not None})
    known = {number for number, _, _ in snapshot.sources_of_patients(wanted)} if wanted else ()
    return len(wanted) - len(known)


def lost_patients(snapshot: Snapshot, dead: Mapping[str, Any]) -> int:
    """How many patients lose their last source where those of ``dead``, by shard, go."""
    patients: set[str] = set()
    for shard in snapshot.shards:
        numbers = dead.get(shard.uuid)
        if numbers is not None and len(numbers):
            patients.update(p for p in shard.patients.take(np.asarray(numbers)) if p is not None)
    wanted = sorted(patients)
    left = {
        number
        for number, shard, source in (snapshot.sources_of_patients(wanted) if wanted else ())
        if source not in dead.get(shard.uuid, ())
    }
    return len(wanted) - len(left)


def totals_from_json(value: Any) -> Totals | None:
    """Totals as JSON has them; TypeError where they make no sense."""
    if value is None:
        return None
    totals = Totals(**value)
    counts = (totals.unlabelled, totals.patients, totals.bytes)
    tables = (totals.classes, totals.formats)
    fit = all(isinstance(table, dict) for table in tables)
    fit = fit and all(_is_count(n) for table in tables for n in table.values())
    if not fit or not all(map(_is_count, counts)):
        message = "totals are counts"
        raise TypeError(message)
    return totals


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
