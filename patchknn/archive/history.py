"""The history of an archive: what each snapshot changed, and what was run for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchknn.archive.manifests import manifest_numbers, read_manifest_file
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
    shards: int
    run_id: str | None
    argv: tuple[str, ...] | None


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
            shards=len(manifest.shards),
            run_id=manifest.run_id,
            argv=tuple(map(str, argv)) if isinstance(argv, list) else None,
        )
