"""Changing an archive in one step: read the newest snapshot, write what is new, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import publish
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.files import fsync_directory


class Written(Protocol):
    """A shard or change on disk, in ``folder``, that no manifest names yet."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    def rename(self) -> None:
        """Give it its own name."""

    def remove(self) -> None:
        """Delete it under either name."""


class Revision(NamedTuple):
    """The next snapshot, and the new files that it names."""

    manifest: Manifest
    written: Sequence[Written] = ()


def publish_revision(
    path: Path,
    settings: ArchiveSettings,
    revise: Callable[[Snapshot], Revision | None],
    *,
    action: str,
    run_id: str | None = None,
    known: Snapshot | None = None,
) -> Manifest | None:
    """Publish what ``revise`` makes of the newest snapshot, asked again after each lost race.

    It starts from ``snapshot.manifest.unchanged()``; None where nothing is to be done. What it
    wrote for a race that was lost is deleted, unless it hands it over again. Of shards that
    have an index and are not used by ``revise`` no file is looked at.
    """
    snapshot, written = known, tuple[Written, ...]()

    def on_newest(parent: Manifest) -> Manifest | None:
        nonlocal snapshot, written
        if snapshot is None or snapshot.manifest.nonce != parent.nonce:
            snapshot = open_snapshot(path, settings, manifest=parent, known=snapshot, check=False)
        try:
            revision = revise(snapshot)
        except BaseException:
            _remove(written)
            raise
        fresh = () if revision is None else tuple(revision.written)
        _remove([one for one in written if one not in fresh])
        written = fresh
        if revision is None:
            return None
        try:
            for one in written:
                one.rename()
            for folder in {one.folder for one in written}:
                fsync_directory(folder)
        except BaseException:
            _remove(written)
            raise
        return revision.manifest

    # Where publishing itself fails, the snapshot may be there all the same: nothing is deleted.
    manifest = None if known is None else known.manifest
    return publish(
        *(path, settings.archive_id, on_newest), action=action, run_id=run_id, known=manifest
    )


def _remove(written: Sequence[Written]) -> None:
    for one in written:
        one.remove()
