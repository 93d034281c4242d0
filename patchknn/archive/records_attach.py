"""Attaching tables of slides or patients to an archive, and taking them off again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from patchknn.archive.manifest import RECORDS, RecordsEntry
from patchknn.archive.records import open_records, records_file
from patchknn.archive.records_given import read_given
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.errors import ConflictError, UsageError
from patchknn.files import fsync_directory


class Attachment(NamedTuple):
    """What was attached, and what of it is of no use.

    ``unknown``: keys that the archive lacks. ``known`` is one that it has, where none was met.
    ``unkeyed`` and ``left_out`` as in ``Given``; ``number`` is None where nothing was published.
    """

    name: str
    rows: int
    fields: tuple[str, ...]
    unknown: tuple[str, ...]
    known: str | None
    unkeyed: int
    left_out: tuple[str, ...]
    replaced: bool
    number: int | None


class WrittenTable(NamedTuple):
    """A table on disk, as ``temporary``, that no manifest names yet."""

    temporary: Path
    file: Path

    @property
    def folder(self) -> Path:
        """Where it is to lie."""
        return self.file.parent

    def rename(self) -> None:
        """Give it its own name; nothing happens where it has it already."""
        if not self.folder.exists():
            self.folder.mkdir(exist_ok=True)
            fsync_directory(self.folder.parent)
        if self.temporary.exists():
            os.replace(self.temporary, self.file)

    def remove(self) -> None:
        """Delete what is temporary.

        Under its own name it stays: a snapshot may name it, for the same table has the same name.
        """
        self.temporary.unlink(missing_ok=True)


def attach_records(
    path: Path,
    source: Path,
    key: str,
    *,
    name: str | None = None,
    missing: Collection[str] = (),
    run_id: str | None = None,
    dry_run: bool = False,
) -> Attachment:
    """Attach the table ``source``, whose rows are of one ``key`` each, under its file name.

    It takes the place of an older one of that ``name``; where it is the same, nothing is done.
    Raises InputError as ``read_given``, ConflictError where another table has one of its fields.
    """
    settings = read_settings(path)
    name = name or source.name
    with _folder(None if dry_run else path) as folder:
        given = read_given(source, key, folder, missing)
        entry = RecordsEntry(given.sha256, key, name, len(given.keys))
        report: Attachment | None = None

        def attached(snapshot: Snapshot) -> Revision | None:
            nonlocal report
            manifest = snapshot.manifest.unchanged()
            others = tuple(one for one in manifest.records if one.name != name)
            _check_fields(path, others, name, given.fields)
            known = _known(snapshot, key)
            unknown = tuple(one for one in given.keys if one not in known)
            report = Attachment(
                name=name,
                rows=len(given.keys),
                fields=given.fields,
                unknown=unknown,
                known=min(known, default=None) if len(unknown) == len(given.keys) else None,
                unkeyed=given.unkeyed,
                left_out=given.left_out,
                replaced=len(others) < len(manifest.records) and entry not in manifest.records,
                number=None,
            )
            if dry_run or entry in manifest.records:
                return None
            table = WrittenTable(given.file, records_file(path, given.sha256))
            return Revision(manifest._replace(records=(*others, entry)), (table,))

        number = None
        if dry_run:
            attached(open_snapshot(path, settings))
        else:
            published = publish_revision(path, settings, attached, action="attach", run_id=run_id)
            number = None if published is None else published.number
    assert report is not None
    return report._replace(number=number)


def detach_records(
    path: Path, name: str, *, run_id: str | None = None, dry_run: bool = False
) -> int | None:
    """Publish a snapshot without the table ``name``; its number, None for ``dry_run``.

    Earlier snapshots keep it until ``gc``. Raises UsageError where none is called so.
    """
    settings = read_settings(path)

    def without(snapshot: Snapshot) -> Revision | None:
        manifest = snapshot.manifest.unchanged()
        left = tuple(entry for entry in manifest.records if entry.name != name)
        if len(left) == len(manifest.records):
            names = ", ".join(entry.name for entry in left) or "none"
            message = f"{path} has no records called {name!r}: it has {names}."
            raise UsageError(message)
        return None if dry_run else Revision(manifest._replace(records=left))

    if dry_run:
        without(open_snapshot(path, settings))
        return None
    published = publish_revision(path, settings, without, action="detach", run_id=run_id)
    return None if published is None else published.number


def _known(snapshot: Snapshot, key: str) -> set[str]:
    """The slides or patients of a snapshot that have a row left."""
    known: set[str] = set()
    for shard in snapshot.shards:
        live = shard.live_sources()
        found = shard.source_names.take(live) if key == "slide" else shard.patients.take(live)
        known.update(one for one in found if one is not None)
    return known


def _check_fields(
    path: Path, others: Sequence[RecordsEntry], name: str, fields: Sequence[str]
) -> None:
    if not others:
        return
    with open_records(path, others) as records:
        own = {field.lower() for field in fields}
        for field in records.fields:
            if field.name.lower() in own:
                message = (
                    f"{field.table} has a field {field.name!r} already, so {name} cannot have one: "
                    f"rename it, or run 'patchknn archive records detach {path} {field.table}'."
                )
                raise ConflictError(message)


@contextmanager
def _folder(path: Path | None) -> Iterator[Path]:
    """A temporary folder within the archive, where ``gc`` finds it should this process be killed.

    Elsewhere where nothing is to be written.
    """
    folder = Path(mkdtemp(prefix=f".tmp-{RECORDS}-", dir=path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
