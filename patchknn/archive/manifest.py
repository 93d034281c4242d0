"""What a manifest says: one snapshot of an archive, as JSON and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.sealed import check_format, damage
from patchknn.archive.shard_list import ShardList, are_hexadecimal
from patchknn.archive.totals import Totals, totals_from_json

FORMAT = "patchknn-manifest"
# 2: rows may be removed and relabelled, and totals are kept; 3: shards are kept by column.
FORMAT_VERSION = 3
RECORDS = "records"  # the folder of attached tables
REMOVE, RELABEL = "remove", "relabel"
UNDONE = "undone"  # in a label history only: a relabelling that was rolled back
_HEX64 = re.compile(r"[0-9a-f]{64}")


class ChangeEntry(NamedTuple):
    """One change to rows of the shards: its kind, how many, checksum of its JSON."""

    uuid: str
    kind: str
    rows: int
    checksum: str


class RecordsEntry(NamedTuple):
    """A table of slides or patients that is attached: ``records/<sha256>.parquet``.

    ``key`` is what its rows are of, ``slide`` or ``patient``; ``name`` that of the file given.
    """

    sha256: str
    key: str
    name: str
    rows: int


class Manifest(NamedTuple):
    """One snapshot. ``action`` and the counts of rows and sources say what it changed.

    ``rows`` and ``sources`` are live ones. ``changes`` apply to the shards in their order;
    ``label_history`` are those whose labels the shards hold by now, kept for what they tell.
    ``purged``: rows were purged, so that no snapshot before this number may be rolled back to;
    ``totals`` None where an earlier version did not count. ``calibration`` is what
    ``archive.calibration`` reads.
    """

    number: int
    archive_id: str
    nonce: str
    parent: str | None
    time: str
    action: str
    run_id: str | None
    rows: int
    sources: int
    rows_added: int
    sources_added: int
    classes: tuple[str, ...]
    shards: ShardList
    changes: tuple[ChangeEntry, ...] = ()
    rows_removed: int = 0
    sources_removed: int = 0
    rows_relabelled: int = 0
    label_history: tuple[ChangeEntry, ...] = ()
    records: tuple[RecordsEntry, ...] = ()
    purged: int = 0
    totals: Totals | None = None
    calibration: dict[str, Any] | None = None

    @property
    def row_numbers(self) -> int:
        """Rows of the shards, removed ones too: every row of a snapshot has a number below."""
        return sum(self.shards.rows)

    @property
    def relabellings(self) -> tuple[ChangeEntry, ...]:
        """All that was ever relabelled: what shards hold by now, then what is laid over them."""
        known = {entry.uuid for entry in self.label_history}
        laid_over = (e for e in self.changes if e.kind == RELABEL and e.uuid not in known)
        return (*self.label_history, *laid_over)

    def unchanged(self) -> Manifest:
        """The same snapshot as the start of the next one, which has added and removed nothing."""
        return self._replace(
            rows_added=0, sources_added=0, rows_removed=0, sources_removed=0, rows_relabelled=0
        )

    def followed_by(self, change: ChangeEntry) -> Manifest:
        """The same with one more change."""
        return self._replace(changes=(*self.changes, change))

    def as_json(self) -> dict[str, Any]:
        """The content of its file, not yet sealed."""
        fields = self._asdict()
        fields["shards"] = self.shards.as_json()
        for name in ("changes", "label_history", "records"):
            fields[name] = [entry._asdict() for entry in fields[name]]
        fields["totals"] = None if self.totals is None else self.totals._asdict()
        if self.calibration is None:
            del fields["calibration"]
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **fields}


def live_rows(shards: ShardList, changes: tuple[ChangeEntry, ...]) -> int:
    """Rows of these shards that no change removed; each row is removed once."""
    removed = sum(entry.rows for entry in changes if entry.kind == REMOVE)
    return sum(shards.rows) - removed


def manifest_from_json(value: dict[str, Any], file: Path, path: Path) -> Manifest:
    """Check the content of the manifest ``file`` of the archive at ``path``.

    Raises DamageError where it holds what cannot be, InputError where it is of a newer format.
    """
    check_format(value, file, path, FORMAT, FORMAT_VERSION)
    try:
        content = {k: v for k, v in value.items() if k in Manifest._fields}
        content["shards"] = ShardList.from_json(value["shards"])
        content["classes"] = tuple(value["classes"])
        for name in ("changes", "label_history"):
            content[name] = tuple(ChangeEntry(**entry) for entry in value.get(name, ()))
        content["records"] = tuple(RecordsEntry(**entry) for entry in value.get("records", ()))
        content["totals"] = totals_from_json(value.get("totals"))
        manifest = Manifest(**content)
    except (TypeError, KeyError):
        raise damage(path, f"{file} lacks an entry or holds one that cannot be.") from None
    if not _plausible(manifest):
        raise damage(path, f"{file} holds an entry that cannot be.")
    return manifest


def _plausible(manifest: Manifest) -> bool:
    changes = (*manifest.changes, *manifest.label_history)
    counts = (
        *(manifest.sources, manifest.rows_added, manifest.sources_added),
        *(manifest.rows_removed, manifest.sources_removed, manifest.rows_relabelled),
        manifest.purged,
        *(entry.rows for entry in manifest.records),
    )
    return (
        _texts_fit(manifest)
        and isinstance(manifest.calibration, dict | None)
        and all(isinstance(name, str) for name in manifest.classes)
        and len(set(manifest.classes)) == len(manifest.classes)
        and are_hexadecimal([manifest.nonce], 32)
        and manifest.shards.is_plausible
        and are_hexadecimal([entry.uuid for entry in changes], 32)
        and are_hexadecimal([entry.checksum for entry in changes], 64)
        and all(type(entry.rows) is int and entry.rows > 0 for entry in changes)
        and all(entry.kind in (REMOVE, RELABEL) for entry in manifest.changes)
        and all(entry.kind in (RELABEL, UNDONE) for entry in manifest.label_history)
        and set(map(type, counts)) <= {int}
        and min(counts) >= 0
        and len({e.uuid for e in changes}) == len(changes)
        and all(_is_record(entry) for entry in manifest.records)
        and type(manifest.rows) is int
        and manifest.rows == live_rows(manifest.shards, manifest.changes) >= 0
    )


def _texts_fit(manifest: Manifest) -> bool:
    texts = (manifest.archive_id, manifest.nonce, manifest.time, manifest.action)
    perhaps = (manifest.parent, manifest.run_id)
    return (
        type(manifest.number) is int
        and all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in perhaps)
    )


def _is_record(entry: RecordsEntry) -> bool:
    return (
        isinstance(entry.sha256, str)
        and _HEX64.fullmatch(entry.sha256) is not None
        and entry.key in ("slide", "patient")
        and isinstance(entry.name, str)
    )
