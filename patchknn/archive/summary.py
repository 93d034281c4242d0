"""What an archive holds, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from patchknn.archive.snapshot import Snapshot


@dataclass(frozen=True)
class Summary:
    """Counts over one snapshot; ``bytes`` are those of its shards' files."""

    rows: int
    sources: int
    patients: int
    classes: dict[str, int]
    unlabelled: int
    shards: int
    formats: dict[str, int]
    bytes: int


def summarise(snapshot: Snapshot) -> Summary:
    """Count rows by class, sources, known patients, shards by format, and bytes."""
    labels = np.zeros(len(snapshot.classes) + 1, np.int64)
    patients: set[str | None] = set()
    for shard in snapshot.shards:
        live = shard.labels if not len(shard.edits.removed) else shard.labels[shard.live_rows()]
        labels += np.bincount(live + 1, minlength=len(labels))
        if len(shard.edits.dead_sources):
            patients.update(shard.patients.take(shard.live_sources()))
        else:
            patients.update(shard.patients.distinct())
    descriptions = [shard.description for shard in snapshot.shards]
    return Summary(
        rows=len(snapshot),
        sources=snapshot.n_sources,
        patients=len(patients - {None}),
        classes=dict(zip(snapshot.classes, labels[1:].tolist(), strict=True)),
        unlabelled=int(labels[0]),
        shards=len(snapshot.shards),
        formats=dict(Counter(description.container for description in descriptions)),
        bytes=sum(record.size for shard in descriptions for record in shard.files),
    )
