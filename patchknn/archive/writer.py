"""Adding rows to an archive: buffered, written as shards, published in one step."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from patchknn.archive.change_writer import WrittenChange, write_removal
from patchknn.archive.choice import Choice, chosen_rows
from patchknn.archive.counting import Dead, Labels, labels_of, new_patients, totals_of
from patchknn.archive.description import MAX_SHARD_BYTES, SHARD_FORMATS
from patchknn.archive.leftovers import remove_leftovers
from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import (
    manifest_numbers,
    now,
    publish,
    read_manifest,
    read_manifest_file,
)
from patchknn.archive.paths import stored_path
from patchknn.archive.pending import PendingShards
from patchknn.archive.preparation import check_shapes, nbytes_of, prepared, without_repeats
from patchknn.archive.remove import after_removal, left_empty
from patchknn.archive.rows import Rows, Source, concatenate
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, find_sources, open_snapshot
from patchknn.errors import ConflictError, DamageError, PatchknnError, UsageError
from patchknn.files import fsync_directory

# A shard is sorted in memory, and fewer shards are searched faster: half a gigabyte of rows.
_SHARD_BYTES = 512 << 20


class SourcesTakenError(ConflictError):
    """Others published other files under the names of some sources meanwhile.

    ``sentences`` says it of each name; the rest of what was to be published is.
    """

    def __init__(self, sentences: dict[str, str]) -> None:
        super().__init__(" ".join(sentences.values()))
        self.sentences = sentences


class ArchiveWriter:
    """One process's additions to an archive; any number of processes may add at once.

    Rows become visible to readers by ``publish`` alone. Absolute paths of sources are kept only
    with ``store_paths``; ``action`` is what its snapshots are called. A context manager: on leaving
    it, what was not published is removed.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str = "zarr",  # noqa: A002  (what the option is called everywhere)
        run_id: str | None = None,
        shard_bytes: int = _SHARD_BYTES,
        store_paths: bool = False,
        action: str = "embed",
    ) -> None:
        if format not in SHARD_FORMATS:
            message = f"--format {format}: shards are {' or '.join(SHARD_FORMATS)}."
            raise UsageError(message)
        self.path = path
        self.settings = read_settings(path)
        self.format = format
        self.run_id = run_id
        self.duplicates = 0  # rows left out because the archive has them already
        self._store_paths = store_paths
        self._action = action
        self._shard_bytes = min(shard_bytes, MAX_SHARD_BYTES // 2)
        self._opened = open_snapshot(path, self.settings, check=False)
        self._newest = self._opened.manifest
        self._bundle = self._snapshot.bundle()
        self._buffer: list[Rows] = []
        self._buffered_bytes = 0
        self._pending: dict[str, Source] = {}
        self._replaced: set[str] = set()
        self._removal: WrittenChange | None = None
        self._shards = PendingShards(path, self.settings, container=format, run_id=run_id)
        self._publishing = False
        if self._newest.time[:10] != now()[:10]:
            remove_leftovers(path)  # once a day: folders of thousands of shards are listed for it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, rows: Rows, *, replace: bool = False) -> int:
        """Take rows in, and return how many were new; their arrays are not to be changed later.

        Rows of a source that was published before with the same content are left out and
        counted in ``duplicates``; a source may come in several parts before it is published.
        With ``replace`` rows of other content take the place of the published ones, in the same
        snapshot.
        Features are rounded to the archive's dtype, and codes made of the rounded ones. Raises
        ConflictError where a source's name is taken by other content (nothing is taken in then),
        InputError where a feature is not finite.
        """
        check_shapes(rows, self.settings)
        if not len(rows):
            return 0
        published, replaced = self._published_sources(rows, replace=replace)
        if published.any():
            kept = ~published[rows.source]
            self.duplicates += int(len(rows) - kept.sum())
            rows = rows.take(kept)
            if not len(rows):
                return 0
        rows = prepared(rows, self.settings, self._bundle)
        self._replaced |= replaced  # not before: what is not taken in replaces nothing
        for number in np.unique(rows.source).tolist():
            self._pending.setdefault(rows.sources[number].name, rows.sources[number])
        self._buffer.append(self._with_stored_paths(rows))
        self._buffered_bytes += nbytes_of(rows)
        if self._buffered_bytes >= self._shard_bytes:
            self.flush()
        return len(rows)

    def flush(self) -> None:
        """Write what is buffered as shards, synced to disk; readers do not see them yet."""
        if not self._buffer:
            return
        given = concatenate(self._buffer)
        rows = without_repeats(given)
        self.duplicates += len(given) - len(rows)
        pieces = max(math.ceil(self._buffered_bytes / self._shard_bytes), 1)
        self._shards.write(rows, pieces)
        self._buffer = []
        self._buffered_bytes = 0

    def publish(self) -> int | None:
        """Make everything added so far visible in one step; the new snapshot's number.

        None where there was nothing to publish. A source that another process published in the
        meantime is left out: with the same content it counts in ``duplicates``; with other
        content the rest is published and SourcesTakenError names both.
        """
        self._settle()
        self.flush()
        conflicts: dict[str, str] = {}

        def with_shards(parent: Manifest) -> Manifest | None:
            self._drop_removal()  # of a race that was lost, or a publication that failed
            conflicts.update(self._drop_taken(parent))
            if not self._shards:
                return None
            self._publishing = True
            self._shards.rename()
            names = [name for shard in self._shards for name in shard.description.classes]
            entries = [shard.entry for shard in self._shards]
            new_sources = sum(entry.sources for entry in entries)
            replaced, gone = self._without_replaced(parent)
            snapshot = self._at(parent)
            opened = self._shards.opened()
            labels: Labels = Counter()
            for one in opened:
                labels += labels_of(one, one.description.classes)
            patients = {patient for shard in opened for patient in shard.patients.distinct()}
            return replaced._replace(
                shards=parent.shards.followed_by(entries),
                classes=tuple(dict.fromkeys([*parent.classes, *names])),
                sources=replaced.sources + new_sources,
                rows_added=sum(entry.rows for entry in entries),
                sources_added=new_sources,
                totals=(replaced.totals or totals_of(snapshot)).changed(
                    labels,
                    patients=new_patients(snapshot, patients, gone),
                    shards=[shard.description for shard in opened],
                ),
            )

        manifest = publish(
            *(self.path, self.settings.archive_id, with_shards),
            action=self._action,
            run_id=self.run_id,
            known=self._newest,
        )
        self._forget()
        if manifest is not None:
            self._newest = manifest
        if conflicts:
            raise SourcesTakenError(conflicts)
        return None if manifest is None else manifest.number

    def _without_replaced(self, parent: Manifest) -> tuple[Manifest, Dead]:
        """The parent without the rows of sources that come anew with other content, and these."""
        if not self._replaced:
            return parent, {}
        snapshot = self._at(parent)
        chosen = chosen_rows(snapshot, Choice(slides=sorted(self._replaced)))
        if not len(chosen):
            return parent, {}
        dead, _ = left_empty(snapshot, chosen)
        manifest = after_removal(snapshot, parent, chosen)
        self._removal = write_removal(self.path, chosen.rows, dead, run_id=self.run_id)
        self._removal.rename()
        fsync_directory(self._removal.folder)
        return manifest.followed_by(self._removal.entry), dead

    def _drop_removal(self) -> None:
        if self._removal is not None:
            self._removal.remove()
            self._removal = None

    def close(self) -> None:
        """Remove what was written and not published."""
        try:
            self._settle()
        except (PatchknnError, OSError):
            self._removal = None  # perhaps published: what cannot be known is not deleted
            self._shards.clear()
        self._shards.remove()
        self._drop_removal()
        self._buffer = []
        self._buffered_bytes = 0
        self._forget()

    def _forget(self) -> None:
        # Before the shards: by them alone it is known to be published.
        self._removal = None
        self._shards.clear()
        self._replaced = set()
        self._pending = {}
        self._publishing = False

    def _settle(self) -> None:
        """A publication that was interrupted may have succeeded all the same: then it counts."""
        if not self._publishing:
            return
        own = {shard.entry.uuid for shard in self._shards}
        # Not the newest alone: another process may have compacted or rolled back since.
        for number in manifest_numbers(self.path):
            if number > self._newest.number:
                manifest = read_manifest_file(self.path, self.settings.archive_id, number)
                snapshot = self._opened_at(manifest)
                published = snapshot.shards_named(own.intersection(manifest.shards.uuid))
                if published:
                    for name in find_sources(published, list(self._pending)):
                        del self._pending[name]
                    self._removal = None  # before the shards, as in _forget
                    self._replaced &= self._pending.keys()
                    self._shards.forget({shard.uuid for shard in published}, self._pending)
                    self._opened, self._newest = snapshot, manifest
                    break
        self._publishing = False

    def _published_sources(
        self, rows: Rows, *, replace: bool
    ) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], set[str]]:
        """Which of the sources (S,) readers see already, and the names of those to be replaced."""
        replaced = set[str]()
        present = np.zeros(len(rows.sources), bool)
        used = [(number, rows.sources[number]) for number in np.unique(rows.source).tolist()]
        unknown = [source.name for _, source in used if source.name not in self._pending]
        published = self._known(unknown) if unknown else {}
        seen: dict[str, Source] = {}
        for number, source in used:
            other = (
                self._pending.get(source.name)
                or published.get(source.name)
                or seen.setdefault(source.name, source)
            )
            if other.same_content(source):
                present[number] = source.name in published
            elif replace and source.name in published:
                replaced.add(source.name)
            else:
                raise ConflictError(_conflict(self.path, source, other))
        return present, replaced

    def _known(self, names: list[str]) -> dict[str, Source]:
        """The published sources of these names."""
        try:
            return self._snapshot.find_sources(names)
        except DamageError:  # shards are looked at only now: purged or collected meanwhile?
            newest = read_manifest(self.path, self.settings.archive_id)
            if newest.nonce == self._opened.manifest.nonce:
                raise
            self._opened = self._opened_at(newest)
            return self._opened.find_sources(names)

    @property
    def _snapshot(self) -> Snapshot:
        """What is published, as far as this process knows, or later; opened when it is needed."""
        if self._opened.number < self._newest.number:
            try:
                self._opened = self._opened_at(self._newest)
            except DamageError:  # it may have been purged, or collected as garbage, meanwhile
                newest = read_manifest(self.path, self.settings.archive_id)
                if newest.nonce == self._newest.nonce:
                    raise
                self._opened = self._opened_at(newest)
        return self._opened

    def _at(self, parent: Manifest) -> Snapshot:
        if self._opened.manifest.nonce != parent.nonce:
            self._opened = self._opened_at(parent)
        return self._opened

    def _opened_at(self, manifest: Manifest) -> Snapshot:
        known = self._opened
        return open_snapshot(self.path, self.settings, manifest=manifest, known=known, check=False)

    def _drop_taken(self, parent: Manifest) -> dict[str, str]:
        """Leave out the sources that others published since; by name, what is a real conflict."""
        if parent.nonce == self._newest.nonce:  # after a repair a number may be another's
            return {}
        newer = self._at(parent)
        seen = set(self._newest.shards.uuid)
        if not {e.uuid for e in self._newest.changes} <= {e.uuid for e in parent.changes}:
            seen = set()  # after a rollback, rows that had been removed are there again
        others = newer.shards_named(set(parent.shards.uuid) - seen)
        # What is replaced anyway may be in a shard that was compacted since.
        taken = find_sources(others, [name for name in self._pending if name not in self._replaced])
        conflicts = {
            name: _conflict(self.path, self._pending[name], other)
            for name, other in taken.items()
            if not other.same_content(self._pending[name])
        }
        if taken:
            before = self._shards.left_out
            try:
                self._shards.leave_out(taken)
            finally:
                self.duplicates += self._shards.left_out - before
        for name in taken:
            del self._pending[name]
        # Not before: where a disk was full it is all looked at again.
        self._opened, self._newest = newer, parent
        return conflicts

    def _with_stored_paths(self, rows: Rows) -> Rows:
        keep = self._store_paths
        paths = (stored_path(source.path, self.path, absolute=keep) for source in rows.sources)
        pairs = zip(rows.sources, paths, strict=True)
        return rows.with_sources(tuple(source._replace(path=path) for source, path in pairs))


def _conflict(path: Path, source: Source, other: Source) -> str:
    return (
        f"{source.path} and {other.path} are different files of one name, {source.name!r}, in "
        f"{path}: give one of them another name in the list's name column."
    )
