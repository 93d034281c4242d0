"""What must be true of an archive after whatever has happened to a process that changed it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from small_archives import Labels, listed

from patchknn.archive.collect import collect_garbage
from patchknn.archive.manifests import manifest_numbers, read_manifest_file
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive


def assert_one_of(path: Path, states: Sequence[Labels]) -> tuple[int, Labels]:
    """The archive is whole, and its newest snapshot holds one of these states: its number, it."""
    assert_whole(path)
    snapshot = open_archive(path)
    rows = listed(path)
    assert rows in states, _difference(rows, states)
    assert snapshot.n_sources == len({identity.split("@")[0] for identity in rows})
    return snapshot.number, rows


def assert_nothing_left(path: Path) -> None:
    """After garbage was collected, there is nothing but what the snapshots name."""
    collect_garbage(path, older_than=0)
    assert [file for file in path.rglob("*") if file.name.startswith(".tmp-")] == []
    assert list(path.glob(".claims/*")) == []
    archive_id = read_settings(path).archive_id
    manifests = [read_manifest_file(path, archive_id, n) for n in manifest_numbers(path)]
    shards = {entry.uuid for manifest in manifests for entry in manifest.shards}
    changes = {e.uuid for m in manifests for e in (*m.changes, *m.label_history)}
    assert _stems(path / "shards") == shards
    assert _stems(path / "changes") == changes
    records = {entry.sha256 for manifest in manifests for entry in manifest.records}
    assert _stems(path / "records") == records
    assert_whole(path)


def assert_whole(path: Path) -> None:
    """Verify has nothing to say."""
    told = [f"{finding.file}: {finding.sentence}" for finding in verify_archive(path)]
    assert not told, "\n".join(told)


def files_that_tell_of(path: Path, name: str) -> list[Path]:
    """Files below an archive that hold a name, or are called so."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return [f for f in files if name.encode() in f.read_bytes() or name in unquote(f.name)]


def _stems(folder: Path) -> set[str]:
    return {file.name.split(".")[0] for file in folder.iterdir()} if folder.is_dir() else set()


def _difference(rows: Labels, states: Sequence[Labels]) -> str:
    told = []
    for number, state in enumerate(states):
        lost, more = state.keys() - rows.keys(), rows.keys() - state.keys()
        other = {i for i in rows.keys() & state.keys() if rows[i] != state[i]}
        told.append(
            f"state {number}: lost {sorted(lost)}, more {sorted(more)}, other {sorted(other)}"
        )
    return "\n".join(told)
