"""Going back: a new snapshot that says what an earlier one said; nothing is deleted."""

from __future__ import annotations

from pathlib import Path

from patchknn.archive.manifest import RELABEL, UNDONE, ChangeEntry, Manifest
from patchknn.archive.manifests import manifest_file, read_manifest
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.errors import ConflictError, InputError


def roll_back(
    path: Path, number: int, *, run_id: str | None = None, dry_run: bool = False
) -> Manifest | None:
    """Publish the content of snapshot ``number`` as the newest; None where it is that already.

    Whoever relabelled what since stays in the history, as undone. Raises InputError where there
    is no such snapshot, DamageError where something that it names is gone or damaged.
    """
    settings = read_settings(path)
    _refuse_purged(path, number, read_manifest(path, settings.archive_id))
    wanted = open_snapshot(path, settings, at=number)  # all that it names is there

    def back(newest: Snapshot) -> Revision | None:
        now, then = newest.manifest, wanted.manifest
        _refuse_purged(path, number, now)  # it may have happened meanwhile, and so may a gc
        read_manifest(path, settings.archive_id, number)
        if _content(now) == _content(then):
            return None
        return Revision(
            now.unchanged()._replace(
                shards=then.shards,
                changes=then.changes,
                classes=then.classes,
                records=then.records,
                calibration=then.calibration,
                sources=then.sources,
                totals=then.totals,
                label_history=_history(now, then),
                rows_added=max(then.rows - now.rows, 0),
                rows_removed=max(now.rows - then.rows, 0),
                sources_added=max(then.sources - now.sources, 0),
                sources_removed=max(now.sources - then.sources, 0),
            )
        )

    if dry_run:
        revision = back(open_snapshot(path, settings))
        return None if revision is None else wanted.manifest
    published = publish_revision(path, settings, back, action=f"rollback {number}", run_id=run_id)
    _check_again(path, number, published)
    return published


def _refuse_purged(path: Path, number: int, newest: Manifest) -> None:
    if number < newest.purged:
        purged = newest.purged
        message = f"{path}: rows were purged in snapshot {purged}; nothing before it can be had."
        raise InputError(message)


def _check_again(path: Path, number: int, back: Manifest | None) -> None:
    """Of gc and a rollback at the same moment gc wins: then the snapshot before is put back.

    gc deletes manifests first, and reads those that are new before it deletes what they name.
    """
    if back is None or manifest_file(path, number).exists():
        return
    roll_back(path, back.number - 1)
    message = f"{path}: gc deleted snapshot {number} meanwhile; nothing was rolled back."
    raise ConflictError(message)


def _content(manifest: Manifest) -> tuple[object, ...]:
    named = manifest.shards, manifest.changes, manifest.classes, manifest.records
    return *named, manifest.calibration


def _history(now: Manifest, then: Manifest) -> tuple[ChangeEntry, ...]:
    """All that was ever told: of what snapshot ``then`` does not hold, that it was undone."""
    held = {entry.uuid for entry in (*then.changes, *then.label_history)}
    told = {entry.uuid: entry for entry in then.label_history}
    for entry in (*now.label_history, *now.changes):
        if entry.uuid not in held and entry.kind in {RELABEL, UNDONE}:
            told[entry.uuid] = entry._replace(kind=UNDONE)
    return tuple(told.values())
