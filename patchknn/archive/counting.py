"""Counting what a snapshot holds, or only what a change to it touches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from patchknn.archive.shard import Shard
from patchknn.archive.snapshot import Snapshot
from patchknn.archive.totals import NOTHING, Totals

Labels = Counter[str | None]
Dead = Mapping[str, Any]  # numbers of sources without a row from here on, by shard


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


def new_patients(
    snapshot: Snapshot, patients: Iterable[str | None], dead: Dead | None = None
) -> int:
    """How many of these patients a snapshot has no live source of, once ``dead`` is gone."""
    wanted = sorted({patient for patient in patients if patient is not None})
    return len(wanted) - _known(snapshot, wanted, dead or {})


def lost_patients(snapshot: Snapshot, dead: Dead) -> int:
    """How many patients lose their last source where those of ``dead`` go."""
    patients: set[str] = set()
    for shard in snapshot.shards_named(dead):
        numbers = dead[shard.uuid]
        if len(numbers):
            patients.update(p for p in shard.patients.take(np.asarray(numbers)) if p is not None)
    wanted = sorted(patients)
    return len(wanted) - _known(snapshot, wanted, dead)


def _known(snapshot: Snapshot, patients: Sequence[str], dead: Dead) -> int:
    """How many of these patients have a live source that is not in ``dead``."""
    places = snapshot.sources_of_patients(patients) if patients else ()
    return len({n for n, shard, source in places if source not in dead.get(shard.uuid, ())})
