"""The rows of a snapshot one by one, in words, with filters."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard, Snapshot, StoredRow, patch_id
from patchknn.errors import UsageError

_BLOCK = 4096


def list_rows(
    snapshot: Snapshot,
    *,
    labels: Iterable[str] = (),
    sources: Iterable[str] = (),
    since: Snapshot | None = None,
) -> Iterator[StoredRow]:
    """Rows in the order of the snapshot, as they are read.

    ``labels`` keeps rows of these classes, ``sources`` those of sources with these names; both
    keep all where they are empty. ``since`` leaves out rows that an earlier snapshot has, by
    their ids. Raises UsageError where the snapshot has no such class or source.
    """
    wanted_labels = [class_number(snapshot, label) for label in labels]
    wanted_sources = list(sources)
    present = snapshot.find_sources(wanted_sources)
    for name in wanted_sources:
        if name not in present:
            message = f"--source {name}: {snapshot.path} has no such source."
            raise UsageError(message)
    known = {} if since is None else {shard.uuid: shard for shard in since.shards}
    for shard in snapshot.shards:
        rows = _rows_of(shard, wanted_labels, wanted_sources)
        before = known.get(shard.uuid)
        if before is not None:
            rows = rows[~before.is_live(rows)]
        for start in range(0, len(rows), _BLOCK):
            block = _in_words(snapshot, shard, rows[start : start + _BLOCK])
            if since is not None and before is None:  # compacted since, or new
                block = _unknown(since, list(block))
            yield from block


def class_number(snapshot: Snapshot, label: str) -> int:
    """Which class of the snapshot a ``--label`` means; UsageError with the nearest name if none."""
    if label in snapshot.classes:
        return snapshot.classes.index(label)
    close = difflib.get_close_matches(label, snapshot.classes, n=1)
    names = ", ".join(snapshot.classes) or "none at all"
    hint = f"did you mean {close[0]!r}?" if close else f"it has {names}."
    message = f"--label {label}: {snapshot.path} has no such class; {hint}"
    raise UsageError(message)


def _rows_of(shard: Shard, labels: list[int], sources: list[str]) -> npt.NDArray[np.int64]:
    keep = ~shard.edits.removed_mask if len(shard.edits.removed) else np.ones(shard.n, bool)
    if labels:
        keep &= np.isin(shard.labels, labels)
    if sources:
        numbers = [n for name in sources for n in shard.source_names.equal_to(name).tolist()]
        keep &= np.isin(shard.source, numbers)
    return np.flatnonzero(keep).astype(np.int64, copy=False)


def _unknown(since: Snapshot, rows: list[StoredRow]) -> Iterator[StoredRow]:
    found = since.locate_many([row.id for row in rows])
    return (row for row, place in zip(rows, found.tolist(), strict=True) if place < 0)


def _in_words(snapshot: Snapshot, shard: Shard, rows: npt.NDArray[np.int64]) -> Iterator[StoredRow]:
    source = shard.source[rows]
    mpp = shard.source_mpp[source]
    columns = (
        rows.tolist(),
        shard.labels[rows].tolist(),
        shard.coords[rows].tolist(),
        shard.codes[rows],
        shard.source_names.take(source),
        shard.source_paths(source),
        shard.patients.take(source),
        [None if math.isnan(value) else value for value in mpp.tolist()],
    )
    for row, label, (x, y), code, name, path, patient, level0_mpp in zip(*columns, strict=True):
        yield StoredRow(
            row=shard.first_row + row,
            id=patch_id(name, x, y),
            label=None if label < 0 else snapshot.classes[label],
            source=name,
            x=x,
            y=y,
            patient=patient,
            code=code.tobytes(),
            path=path,
            mpp=level0_mpp,
        )
