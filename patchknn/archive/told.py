"""Parts of a label history, written again where rows are forgotten or taken in elsewhere."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.change import Change, open_change
from patchknn.archive.change_writer import WrittenChange, write_relabelling
from patchknn.archive.manifest import ChangeEntry
from patchknn.archive.snapshot import Snapshot


def written_again(
    path: Path, change: Change, keep: npt.NDArray[np.bool_], *, prefix: str = ""
) -> WrittenChange:
    """Of a relabelling what is said of the rows ``keep`` (m,), as a change of the archive ``path``.

    ``prefix`` goes before patch ids. A class that was renamed as a whole has no single patches: it
    is told as long as a row of it is kept.
    """
    words = (*change.head.classes, None)
    rows, labels, start = {}, {}, 0
    for number, uuid in enumerate(change.shards):
        own = change.rows_of(number).astype(np.int64)
        mine = keep[start : start + len(own)]
        start += len(own)
        if mine.any():
            rows[uuid] = own[mine]
            labels[uuid] = [words[label] for label in change.labels_of(number)[mine].tolist()]
    told: list[Any] | None = None
    if change.has_events:
        chosen = zip(change.events(), keep, strict=True)
        told = [event._replace(id=prefix + event.id) for event, stays in chosen if stays]
    head = change.head
    return write_relabelling(
        path, rows, labels, run_id=head.run_id, events=told, rename=head.rename, time=head.time
    )


def told_of(
    other: Snapshot, newest: Snapshot, taken: Container[str], prefix: str
) -> Iterator[tuple[WrittenChange, ChangeEntry]]:
    """What the archive of ``other`` tells of the patches ``taken``, as changes of the newest's.

    ``taken`` are patch ids with their ``prefix``. With each its entry in a label history. That a
    class was renamed is told once.
    """
    heads = [open_change(newest.path, entry).head for entry in newest.manifest.relabellings]
    known = {(head.time, head.rename) for head in heads}
    for entry in other.manifest.relabellings:
        change = open_change(other.path, entry)
        if change.has_events:
            keep = np.array([prefix + event.id in taken for event in change.events()], bool)
        else:
            keep = np.full(entry.rows, (change.head.time, change.head.rename) not in known)
        if keep.any():
            written = written_again(newest.path, change, keep, prefix=prefix)
            yield written, written.entry._replace(kind=entry.kind)
