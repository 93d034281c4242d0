"""The history of an archive: what each snapshot changed, and what was run for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchknn.archive.change import open_change
from patchknn.archive.manifest import UNDONE
from patchknn.archive.manifests import manifest_numbers, read_manifest, read_manifest_file
from patchknn.archive.runs import read_run
from patchknn.archive.settings import read_settings


@dataclass(frozen=True)
class HistoryEntry:
    """One snapshot; ``argv`` is None where its run left no record."""

    number: int
    time: str
    action: str
    rows: int
    rows_added: int
    sources: int
    sources_added: int
    rows_removed: int
    sources_removed: int
    rows_relabelled: int
    shards: int
    run_id: str | None
    argv: tuple[str, ...] | None


@dataclass(frozen=True)
class LabelEvent:
    """One patch that was given another label, or (``id`` None) all ``rows`` of a class.

    ``undone``: the archive was rolled back behind it.
    """

    time: str
    id: str | None
    old: str | None
    new: str | None
    by: str | None
    reason: str | None
    rows: int
    undone: bool
    run_id: str | None


def label_history(path: Path) -> Iterator[LabelEvent]:
    """Every label that was ever changed, the newest change first; errors as ``open_archive``."""
    settings = read_settings(path)
    manifest = read_manifest(path, settings.archive_id)
    changes = [(open_change(path, e), e.kind == UNDONE) for e in manifest.relabellings]
    changes.sort(key=lambda pair: pair[0].head.time)  # of one second: in the order they were made
    for change, undone in reversed(changes):
        head = change.head
        if head.rename is not None:
            old, new = head.rename
            rename = LabelEvent(
                head.time, None, old, new, None, None, head.rows, undone, head.run_id
            )
            yield rename
        for e in change.events():
            yield LabelEvent(head.time, e.id, e.old, e.new, e.by, e.reason, 1, undone, head.run_id)


def history(path: Path) -> Iterator[HistoryEntry]:
    """Snapshots from the newest back; errors as ``open_archive``."""
    settings = read_settings(path)
    for number in reversed(manifest_numbers(path)):
        manifest = read_manifest_file(path, settings.archive_id, number)
        run = read_run(path, manifest.run_id) if manifest.run_id else None
        argv = run.get("argv") if run else None
        yield HistoryEntry(
            number=number,
            time=manifest.time,
            action=manifest.action,
            rows=manifest.rows,
            rows_added=manifest.rows_added,
            sources=manifest.sources,
            sources_added=manifest.sources_added,
            rows_removed=manifest.rows_removed,
            sources_removed=manifest.sources_removed,
            rows_relabelled=manifest.rows_relabelled,
            shards=len(manifest.shards),
            run_id=manifest.run_id,
            argv=tuple(map(str, argv)) if isinstance(argv, list) else None,
        )
