"""Other labels for rows that are archived: nothing is embedded again, and the history stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.change import Event
from patchknn.archive.change_writer import write_relabelling
from patchknn.archive.choice import Choice, RowsByShard, chosen_rows
from patchknn.archive.counting import Labels as LabelCounts
from patchknn.archive.counting import labels_of, totals_of
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot, patch_id
from patchknn.errors import InputError

Int64 = npt.NDArray[np.int64]
Labels = dict[str, list[str | None]]


class Correction(NamedTuple):
    """One patch's label (None: none), by whom and why."""

    label: str | None
    by: str | None = None
    reason: str | None = None


class Relabelling(NamedTuple):
    """What was relabelled: rows, those that had the label already, what is not there."""

    rows: int
    unchanged: int
    missing: tuple[str, ...]
    number: int | None


class _Plan(NamedTuple):
    rows: RowsByShard
    labels: Labels
    events: list[Event] | None
    unchanged: int
    missing: tuple[str, ...]


def relabel_patches(
    path: Path,
    corrections: Mapping[str, Correction],
    *,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Relabelling:
    """Give patches, by id, other labels, as one step; those that have them already are left."""
    ids = list(corrections)

    def plan(snapshot: Snapshot) -> _Plan:
        found = snapshot.locate_many(ids)
        missing = tuple(name for name, row in zip(ids, found.tolist(), strict=True) if row < 0)
        order = np.argsort(found, kind="stable")
        order = order[found[order] >= 0]
        rows = found[order]
        wanted = {}
        starts = snapshot.shards.first_rows
        for owner in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist():
            shard = snapshot.shards[owner]
            first, after = np.searchsorted(rows, [shard.first_row, shard.first_row + shard.n])
            some = [corrections[ids[number]] for number in order[first:after].tolist()]
            wanted[shard.uuid] = (rows[first:after] - shard.first_row, some)
        return _differing(snapshot, wanted, missing)

    return _publish(path, plan, run_id=run_id, dry_run=dry_run)


def relabel_choice(
    path: Path,
    choice: Choice,
    correction: Correction,
    *,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Relabelling:
    """Give all rows that are meant one label, as one step."""

    def plan(snapshot: Snapshot) -> _Plan:
        chosen = chosen_rows(snapshot, choice)
        wanted = {uuid: (rows, [correction] * len(rows)) for uuid, rows in chosen.rows.items()}
        return _differing(snapshot, wanted, chosen.missing)

    return _publish(path, plan, run_id=run_id, dry_run=dry_run)


def rename_class(
    path: Path, old: str, new: str, *, run_id: str | None = None, dry_run: bool = False
) -> Relabelling:
    """Give all rows of one class the name of another, which may be there already.

    Rows that come later under the old name keep it. Where no row has the old name, nothing is
    done; UsageError where the archive never had such a class.
    """

    def plan(snapshot: Snapshot) -> _Plan:
        chosen = chosen_rows(snapshot, Choice(labels=[old]))
        labels: Labels = {uuid: [new] * len(rows) for uuid, rows in chosen.rows.items()}
        return _Plan(chosen.rows, labels, None, 0, ())

    return _publish(path, plan, run_id=run_id, dry_run=dry_run, rename=(old, new))


def _publish(
    path: Path,
    plan: Callable[[Snapshot], _Plan],
    *,
    run_id: str | None,
    dry_run: bool,
    rename: tuple[str, str] | None = None,
) -> Relabelling:
    settings = read_settings(path)
    report = Relabelling(0, 0, (), None)

    def relabelled(snapshot: Snapshot) -> Revision | None:
        nonlocal report
        found = plan(snapshot)
        count = sum(map(len, found.rows.values()))
        report = Relabelling(count, found.unchanged, found.missing, None)
        if dry_run or not count:
            return None
        manifest = snapshot.manifest.unchanged()
        labels: LabelCounts = Counter(label for some in found.labels.values() for label in some)
        for shard in snapshot.shards_named(found.rows):
            labels.subtract(labels_of(shard, snapshot.classes, found.rows[shard.uuid]))
        named = [label for some in found.labels.values() for label in some if label is not None]
        told = [event.old for event in found.events or () if event.old is not None]
        manifest = manifest._replace(
            classes=tuple(dict.fromkeys([*manifest.classes, *named, *told])),
            rows_relabelled=count,
            totals=totals_of(snapshot).changed(labels),
        )
        # Last, so that what fails leaves nothing.
        written = write_relabelling(
            path, found.rows, found.labels, run_id=run_id, events=found.events, rename=rename
        )
        return Revision(manifest.followed_by(written.entry), (written,))

    if dry_run:
        relabelled(open_snapshot(path, settings))
        return report
    published = publish_revision(path, settings, relabelled, action="relabel", run_id=run_id)
    return report._replace(number=None if published is None else published.number)


def _differing(
    snapshot: Snapshot,
    wanted: Mapping[str, tuple[Int64, Sequence[Correction]]],
    missing: tuple[str, ...],
) -> _Plan:
    """Those of the rows that have another label than is wanted, in words."""
    rows: RowsByShard = {}
    labels: Labels = {}
    events: list[Event] = []
    unchanged = 0
    for shard in snapshot.shards_named(wanted):
        local, corrections = wanted[shard.uuid]
        for correction in corrections:
            _check(correction)
        words = (*snapshot.classes, None)
        old = [words[number] for number in shard.labels_at(local).tolist()]
        differ = [n for n, one in enumerate(corrections) if one.label != old[n]]
        unchanged += len(corrections) - len(differ)
        if not differ:
            continue
        kept = local[differ]
        rows[shard.uuid] = kept
        labels[shard.uuid] = [corrections[n].label for n in differ]
        names = shard.source_names.take(shard.source_at(kept))
        for n, name, (x, y) in zip(differ, names, shard.coords[kept].tolist(), strict=True):
            one = corrections[n]
            events.append(Event(patch_id(name, x, y), old[n], one.label, one.by, one.reason))
    return _Plan(rows, labels, events, unchanged, missing)


def _check(correction: Correction) -> None:
    if correction.label is not None and not correction.label.strip():
        message = "A label is blank; leave it empty for none, or give it a name."
        raise InputError(message)
