"""What a manifest says: one snapshot of an archive, as JSON and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.sealed import check_format, damage
from patchknn.archive.totals import Totals, totals_from_json

FORMAT = "patchknn-manifest"
# 2: rows may be removed and relabelled, and totals are kept.
FORMAT_VERSION = 2
RECORDS = "records"  # the folder of attached tables
REMOVE, RELABEL = "remove", "relabel"
UNDONE = "undone"  # in a label history only: a relabelling that was rolled back
_HEX = re.compile(r"[0-9a-f]*")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_LATER = (
    *("rows_removed", "sources_removed", "rows_relabelled", "label_history"),
    *("records", "purged", "totals"),
)


class ShardEntry(NamedTuple):
    """One live shard: rows, sources not counted by an earlier shard, checksum of its JSON."""

    uuid: str
    rows: int
    sources: int
    checksum: str


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
    ``totals`` None where an earlier version did not count.
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
    shards: tuple[ShardEntry, ...]
    changes: tuple[ChangeEntry, ...] = ()
    rows_removed: int = 0
    sources_removed: int = 0
    rows_relabelled: int = 0
    label_history: tuple[ChangeEntry, ...] = ()
    records: tuple[RecordsEntry, ...] = ()
    purged: int = 0
    totals: Totals | None = None

    @property
    def row_numbers(self) -> int:
        """Rows of the shards, removed ones too: every row of a snapshot has a number below."""
        return sum(entry.rows for entry in self.shards)

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

    def as_json(self) -> dict[str, Any]:
        """The content of its file, not yet sealed."""
        fields = self._asdict()
        names = ShardEntry._fields  # thousands are usual, and _asdict takes five times as long
        fields["shards"] = [dict(zip(names, entry, strict=True)) for entry in self.shards]
        for name in ("changes", "label_history", "records"):
            fields[name] = [entry._asdict() for entry in fields[name]]
        fields["totals"] = None if self.totals is None else self.totals._asdict()
        is_plain = not self.changes and not any(fields[name] for name in _LATER)
        if is_plain:
            fields = {name: value for name, value in fields.items() if name not in _LATER}
        return {"format": FORMAT, "format_version": 1 if is_plain else FORMAT_VERSION, **fields}


def live_rows(shards: tuple[ShardEntry, ...], changes: tuple[ChangeEntry, ...]) -> int:
    """Rows of these shards that no change removed; each row is removed once."""
    removed = sum(entry.rows for entry in changes if entry.kind == REMOVE)
    return sum(entry.rows for entry in shards) - removed


def manifest_from_json(value: dict[str, Any], file: Path, path: Path) -> Manifest:
    """Check the content of the manifest ``file`` of the archive at ``path``.

    Raises DamageError where it holds what cannot be, InputError where it is of a newer format.
    """
    check_format(value, file, path, FORMAT, FORMAT_VERSION)
    try:
        content = {k: v for k, v in value.items() if k in Manifest._fields}
        content["shards"] = tuple(ShardEntry(**entry) for entry in value["shards"])
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
    shards = manifest.shards
    changes = (*manifest.changes, *manifest.label_history)
    sums = [*(entry.rows for entry in shards), *(entry.rows for entry in changes)]
    counts = (
        *(manifest.sources, manifest.rows_added, manifest.sources_added),
        *(manifest.rows_removed, manifest.sources_removed, manifest.rows_relabelled),
        manifest.purged,
        *(entry.sources for entry in shards),
        *(entry.rows for entry in manifest.records),
    )
    return (
        _texts_fit(manifest)
        and all(isinstance(name, str) for name in manifest.classes)
        and len(set(manifest.classes)) == len(manifest.classes)
        and _are_named(shards)
        and _are_named(changes)
        and set(map(type, sums)) <= {int}
        and min(sums, default=1) > 0
        and all(entry.kind in (REMOVE, RELABEL) for entry in manifest.changes)
        and all(entry.kind in (RELABEL, UNDONE) for entry in manifest.label_history)
        and set(map(type, counts)) <= {int}
        and min(counts) >= 0
        and len({e.uuid for e in shards}) == len(shards)
        and len({e.uuid for e in changes}) == len(changes)
        and all(_is_record(entry) for entry in manifest.records)
        and type(manifest.rows) is int
        and manifest.rows == live_rows(shards, manifest.changes) >= 0
    )


def _texts_fit(manifest: Manifest) -> bool:
    texts = (manifest.archive_id, manifest.nonce, manifest.time, manifest.action)
    perhaps = (manifest.parent, manifest.run_id)
    return (
        type(manifest.number) is int
        and all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in perhaps)
    )


def _are_named(entries: Sequence[ShardEntry | ChangeEntry]) -> bool:
    """Whether uuids and checksums are such; all of them at once, for there may be thousands."""
    try:
        text = "".join([f"{entry.uuid:32}{entry.checksum:64}" for entry in entries])
    except (TypeError, ValueError):
        return False
    return len(text) == 96 * len(entries) and _HEX.fullmatch(text) is not None


def _is_record(entry: RecordsEntry) -> bool:
    return (
        isinstance(entry.sha256, str)
        and _HEX64.fullmatch(entry.sha256) is not None
        and entry.key in ("slide", "patient")
        and isinstance(entry.name, str)
    )
