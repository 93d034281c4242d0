"""Taking rows out of an archive: at once for readers, on disk when it is compacted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.change_writer import write_removal
from patchknn.archive.choice import Choice, Chosen, chosen_rows, rows_of_sources
from patchknn.archive.counting import Labels, labels_of, lost_patients, totals_of
from patchknn.archive.manifest import Manifest
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot

Dead = dict[str, npt.NDArray[np.int64]]


class Removal(NamedTuple):
    """What was removed: rows, sources left without any, and the new snapshot's number.

    ``missing``: what was named and is not there; ``number`` is None where nothing was published.
    """

    rows: int
    sources: int
    missing: tuple[str, ...]
    number: int | None


def remove_rows(
    path: Path, choice: Choice, *, run_id: str | None = None, dry_run: bool = False
) -> Removal:
    """Remove the rows that are meant in the newest snapshot, as one step.

    What is gone already is missing, not an error. Raises UsageError where a class is not there.
    """
    settings = read_settings(path)
    report = Removal(0, 0, (), None)

    def without(snapshot: Snapshot) -> Revision | None:
        nonlocal report
        chosen = chosen_rows(snapshot, choice)
        dead, names = left_empty(snapshot, chosen)
        report = Removal(len(chosen), len(names), chosen.missing, None)
        if dry_run or not len(chosen):
            return None
        manifest = after_removal(snapshot, snapshot.manifest.unchanged(), chosen)
        # Last, so that what fails leaves nothing.
        written = write_removal(path, chosen.rows, dead, run_id=run_id)
        return Revision(manifest.followed_by(written.entry), (written,))

    if dry_run:
        without(open_snapshot(path, settings))
        return report
    published = publish_revision(path, settings, without, action="remove", run_id=run_id)
    return report._replace(number=None if published is None else published.number)


def after_removal(snapshot: Snapshot, manifest: Manifest, chosen: Chosen) -> Manifest:
    """``manifest``, that of the next snapshot, as it counts without rows of this one.

    It lacks the change that removes them: all is counted before anything is written.
    """
    dead, names = left_empty(snapshot, chosen)
    labels: Labels = Counter()
    for shard in snapshot.shards_named(chosen.rows):
        labels.subtract(labels_of(shard, snapshot.classes, chosen.rows[shard.uuid]))
    return manifest._replace(
        sources=manifest.sources - len(names),
        rows_removed=len(chosen),
        sources_removed=len(names),
        totals=totals_of(snapshot).changed(labels, patients=-lost_patients(snapshot, dead)),
    )


def left_empty(snapshot: Snapshot, chosen: Chosen) -> tuple[Dead, set[str]]:
    """The sources that lose their last row, by shard; and by name those that are gone altogether.

    A source of two shards is gone from one, and may be there still.
    """
    dead: Dead = {}
    names: set[str] = set()
    for shard in snapshot.shards_named(chosen.rows):
        uuid, rows = shard.uuid, chosen.rows[shard.uuid]
        touched = np.unique(shard.source[rows]).astype(np.int64)
        every = rows_of_sources(shard, touched)
        left = np.setdiff1d(every[shard.is_live(every)], rows, assume_unique=True)
        dead[uuid] = np.setdiff1d(touched, shard.source[left])
        names.update(shard.source_names.take(dead[uuid]))
    ordered = sorted(names)
    for number, shard, source in snapshot.sources_named(ordered):
        if source not in dead.get(shard.uuid, ()):
            names.discard(ordered[number])
    return dead, names
