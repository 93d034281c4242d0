"""What goes along where rows move to another archive: who relabelled what, attached tables."""

from __future__ import annotations

import shutil
from pathlib import Path

from patchknn.archive.change import CHANGES
from patchknn.archive.manifest import RECORDS, Manifest
from patchknn.archive.manifests import publish
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot
from patchknn.files import errors_named, fsync_directory, fsync_file, temporary_beside


def carry_over(
    old: Snapshot, path: Path, *, action: str, run_id: str | None = None
) -> Manifest | None:
    """Give the archive at ``path`` the label history and records of a snapshot of another one.

    What it has already is left; None where nothing is new. Patch ids must be the same in both.
    """
    history = old.manifest.relabellings
    for entry in history:
        for suffix in (".bin", ".json"):
            _copy(old.path, path, f"{CHANGES}/{entry.uuid}{suffix}")
    for record in old.manifest.records:
        _copy(old.path, path, f"{RECORDS}/{record.sha256}.parquet")

    def carried(parent: Manifest) -> Manifest | None:
        known = {entry.uuid for entry in (*parent.changes, *parent.label_history)}
        names = {record.name for record in parent.records}
        new = tuple(entry for entry in history if entry.uuid not in known)
        records = tuple(record for record in old.manifest.records if record.name not in names)
        if not new and not records:
            return None
        return parent._replace(
            label_history=(*parent.label_history, *new), records=(*parent.records, *records)
        )

    return publish(path, read_settings(path).archive_id, carried, action=action, run_id=run_id)


def _copy(old: Path, new: Path, name: str) -> None:
    """Copy one immutable file, as a whole; what is there already is the same."""
    target = new / name
    if target.exists():
        return
    target.parent.mkdir(exist_ok=True)
    temporary = temporary_beside(target)
    try:
        with errors_named(target, temporary):
            shutil.copyfile(old / name, temporary)
            fsync_file(temporary)
            temporary.replace(target)
            fsync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
