"""Forgetting rows altogether, as withdrawn consent demands: nothing of them is left on disk.

Removal and compaction come first; then what else tells of the rows is written anew without them,
and everything that knew them is deleted: earlier snapshots, their shards and changes, the index,
and what a repair put aside. A purge that was killed is finished by the same call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchknn.archive.change import CHANGES, open_change
from patchknn.archive.choice import Choice
from patchknn.archive.collect import OWN
from patchknn.archive.compact import compact
from patchknn.archive.deleting import remove_any, remove_whole
from patchknn.archive.description import SHARDS, parse_description
from patchknn.archive.index.heads import read_heads
from patchknn.archive.index.names import is_segment_name, mosaics_folder, segments_folder
from patchknn.archive.leftovers import job_records, leftovers
from patchknn.archive.locate import Identities, wanted_rows
from patchknn.archive.manifest import RECORDS, ChangeEntry, Manifest
from patchknn.archive.manifests import manifest_file, manifest_numbers, read_manifest_file
from patchknn.archive.opening import open_shards
from patchknn.archive.records_forget import without_keys
from patchknn.archive.remove import remove_rows
from patchknn.archive.repair import DAMAGED
from patchknn.archive.revisions import Revision, Written, publish_revision
from patchknn.archive.runs import RUNS
from patchknn.archive.sealed import read_sealed
from patchknn.archive.settings import ArchiveSettings, read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_list import ShardList
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.archive.told import written_again
from patchknn.errors import ConflictError, InputError, PatchknnError, UsageError
from patchknn.files import read_json, write_json

WITHDRAWN = "[withdrawn]"
_ATTEMPTS = 100  # each is another process that brought rows back
_DAY = 24 * 3600
_JOURNAL = "-purge.json"  # files that are about to be deleted, until they are


class Purge(NamedTuple):
    """What was forgotten: rows and sources, label changes, run records, snapshots, files.

    ``missing``: what was named and is nowhere, not in an earlier snapshot either; ``leftovers``:
    unfinished files of the last day, which are a writer's that may be running still.
    """

    rows: int
    sources: int
    label_events: int
    runs: int
    snapshots: int
    files: int
    missing: tuple[str, ...]
    leftovers: int
    number: int


class _Names(NamedTuple):
    """What may appear nowhere any more: slides, patients, patch ids."""

    slides: frozenset[str]
    patients: frozenset[str]
    ids: frozenset[str]

    def is_of(self, identity: str) -> bool:
        """Whether a patch id is of one of the slides, or is one of the ids."""
        name = identity.rpartition("@")[0] or identity
        return identity in self.ids or identity in self.slides or name in self.slides

    def is_slide_of(self, source: str) -> bool:
        """Whether a source is one of the slides, or one of the ids is of it."""
        return source in self.slides or any(source in {i, i.rpartition("@")[0]} for i in self.ids)

    def longest_first(self) -> list[str]:
        """All of them, so that a name within another is replaced after it."""
        return sorted(self.slides | self.patients | self.ids, key=len, reverse=True)


def purge_rows(path: Path, choice: Choice, *, run_id: str | None = None) -> Purge:
    """Remove the rows that are meant, and every trace of them; it cannot be undone.

    All earlier snapshots are deleted. Raises UsageError where it is not said which rows,
    DamageError where a manifest cannot be read, for what it names would stay.
    """
    if not choice.says_which or choice.labels or choice.where is not None:
        message = "--purge takes --id, --slide and --patient, and nothing else."
        raise UsageError(message)
    settings = read_settings(path)
    names, known = _names(path, settings, choice)
    rows = sources = events = 0
    missing: tuple[str, ...] | None = None

    def scrubbed(snapshot: Snapshot) -> Revision | None:
        nonlocal events
        if any(_holds(shard, names) for shard in snapshot.shards):
            return None
        manifest = snapshot.manifest.unchanged()
        written: list[Written] = []
        try:
            history, events = _without_events(path, manifest, names, written)
            records = without_keys(path, manifest.records, names.slides, names.patients, written)
        except BaseException:
            for one in written:
                one.remove()
            raise
        return Revision(
            manifest._replace(label_history=history, records=records, purged=manifest.number + 1),
            written,
        )

    for _ in range(_ATTEMPTS):
        removal = remove_rows(path, choice, run_id=run_id)
        rows, sources = rows + removal.rows, sources + removal.sources
        missing = removal.missing if missing is None else missing
        compact(path, run_id=run_id)
        manifest = publish_revision(path, settings, scrubbed, action="purge", run_id=run_id)
        if manifest is not None:
            break
    else:
        message = f"{path}: other processes add or roll back what is purged: stop them first."
        raise ConflictError(message)
    runs = sum(_scrub_run(file, names) for file in _files(path / RUNS))
    snapshots, files, younger = _delete_what_knew(path, settings, manifest.number, names)
    return Purge(
        rows=rows,
        sources=sources,
        label_events=events,
        runs=runs,
        snapshots=snapshots,
        files=files,
        missing=tuple(name for name in missing or () if name not in known),
        leftovers=younger + _remove_leftovers(path),
        number=manifest.number,
    )


def _names(path: Path, settings: ArchiveSettings, choice: Choice) -> tuple[_Names, frozenset[str]]:
    """The names that are meant, and those of them that any snapshot's shard knows.

    Removed rows are looked at too: a purge may be on its second run.
    """
    slides, known = set[str](), set[str]()
    for shard in _all_shards(path, settings):
        for patient in choice.patients:
            found = shard.patients.equal_to(patient)
            slides.update(shard.source_names.take(found))
            known |= {patient} if len(found) else set()
        known |= {name for name in choice.slides if len(shard.source_names.equal_to(name))}
    # A slide that is another patient's by now is not forgotten with the one it was.
    if slides:
        there = open_snapshot(path, settings, check=False).find_sources(sorted(slides))
        slides -= {name for name, now in there.items() if now.patient not in choice.patients}
    slides.update(choice.slides)
    ids = frozenset(choice.ids)
    return _Names(frozenset(slides), frozenset(choice.patients), ids), frozenset(known)


def _all_shards(path: Path, settings: ArchiveSettings) -> Iterator[Shard]:
    seen: set[str] = set()
    for number in manifest_numbers(path):
        manifest = read_manifest_file(path, settings.archive_id, number)
        fresh = ShardList(entry for entry in manifest.shards if entry.uuid not in seen)
        seen.update(fresh.uuid)
        some = manifest._replace(shards=fresh, changes=())
        yield from open_shards(
            path,
            settings,
            some,
        )


def _without_events(
    path: Path, manifest: Manifest, names: _Names, written: list[Written]
) -> tuple[tuple[ChangeEntry, ...], int]:
    """The label history without the patches that are forgotten, and how many events those had.

    What is written for it joins ``written``.
    """
    kept: list[ChangeEntry] = []
    dropped = 0
    for entry in manifest.label_history:
        change = open_change(path, entry)
        events = change.events()
        keep = np.array([not names.is_of(event.id) for event in events], bool)
        if keep.all():
            kept.append(entry)
            continue
        dropped += int((~keep).sum())
        if keep.any():
            one = written_again(path, change, keep)
            written.append(one)
            kept.append(one.entry._replace(kind=entry.kind))
    return tuple(kept), dropped


def _scrub_run(file: Path, names: _Names) -> bool:
    """Replace the names in a run's record; whether there were any."""
    try:
        value = read_json(file)
    except InputError:
        return False
    scrubbed = _scrubbed(value, names.longest_first())
    if scrubbed == value:
        return False
    write_json(file, scrubbed)
    return True


def _scrubbed(value: Any, words: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {_scrubbed(key, words): _scrubbed(entry, words) for key, entry in value.items()}
    if isinstance(value, list):
        return [_scrubbed(entry, words) for entry in value]
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, WITHDRAWN)
    return value


def _delete_what_knew(
    path: Path, settings: ArchiveSettings, newest: int, names: _Names
) -> tuple[int, int, int]:
    """Delete all snapshots before ``newest`` and what only they named.

    How many, how many files, and how many are left, for a writer may be about to publish them.
    """
    numbers = manifest_numbers(path)
    before = [read_manifest_file(path, settings.archive_id, n) for n in numbers if n < newest]
    after = [read_manifest_file(path, settings.archive_id, n) for n in numbers if n >= newest]
    live = _named(after)
    doomed = [manifest_file(path, manifest.number) for manifest in before]
    for folder, stem in sorted(_named(before) - live):
        doomed += [file for file in _files(path / folder) if file.name.split(".")[0] == stem]
    doomed += _left_by_a_killed_purge(path, live)
    younger = 0
    for shard in _unnamed(path, live):
        if shard in doomed or not _knows(path, settings, shard, names):
            continue
        if _is_young(shard):
            younger += 1
        else:
            doomed += [shard, *_containers(shard)]
    doomed += [file for file in _files(path / DAMAGED) if OWN[DAMAGED].fullmatch(file.name)]
    doomed += job_records(path)
    # Should this be killed, nobody else knows what these files were.
    journal = path / f".tmp-{os.urandom(6).hex()}{_JOURNAL}"
    write_json(journal, {"files": [file.relative_to(path).as_posix() for file in doomed]})
    for file in doomed:
        remove_any(file)
    for file in path.glob(f".tmp-*{_JOURNAL}"):
        file.unlink(missing_ok=True)
    segments = _other_segments(path, set(after[-1].shards.uuid))
    segments += [file for file in _files(mosaics_folder(path)) if is_segment_name(file.name)]
    for segment in segments:
        remove_whole(segment)
    return len(before), len(doomed) - len(before) + len(segments), younger


def _left_by_a_killed_purge(path: Path, live: set[tuple[str, str]]) -> list[Path]:
    found = []
    for journal in path.glob(f".tmp-*{_JOURNAL}"):
        with suppress(InputError):
            names = read_json(journal).get("files")
            for name in names if isinstance(names, list) else ():
                folder, _, file = str(name).partition("/")
                is_own = folder in {SHARDS, CHANGES, RECORDS} and OWN[folder].fullmatch(file)
                if is_own and (folder, file.split(".")[0]) not in live:
                    found.append(path / folder / file)
    return found


def _other_segments(path: Path, current: set[str]) -> list[Path]:
    """Segments over other shards than these too, and those that cannot be read."""
    heads, _ = read_heads(path)
    kept = {h.folder.name for h in heads if {uuid for uuid, _ in h.shards} <= current}
    folders = _files(segments_folder(path))
    return [file for file in folders if is_segment_name(file.name) and file.name not in kept]


def _is_young(file: Path) -> bool:
    """Whether a file was written within a day: it may be a writer's that is running still."""
    try:
        return file.lstat().st_mtime >= time.time() - _DAY
    except OSError:
        return False


def _named(manifests: Iterable[Manifest]) -> set[tuple[str, str]]:
    return {
        pair
        for m in manifests
        for pair in (
            *((SHARDS, uuid) for uuid in m.shards.uuid),
            *((CHANGES, entry.uuid) for entry in (*m.changes, *m.label_history)),
            *((RECORDS, entry.sha256) for entry in m.records),
        )
    }


def _unnamed(path: Path, live: set[tuple[str, str]]) -> Iterator[Path]:
    for file in _files(path / SHARDS):
        if file.suffix == ".json" and (SHARDS, file.stem) not in live:
            yield file


def _knows(path: Path, settings: ArchiveSettings, shard: Path, names: _Names) -> bool:
    """Whether a shard that no manifest names, such as a killed writer's, holds such a source."""
    with suppress(PatchknnError, OSError):
        description = parse_description(read_sealed(shard, path), shard, path, settings)
        one = Shard(path, description, 0, description.classes)
        return any(names.is_slide_of(name) for name in one.source_names)
    return True  # what cannot be read can be of no use


def _holds(shard: Shard, names: _Names) -> bool:
    """Whether a shard holds rows of these slides, patients or ids, removed ones too."""
    if any(len(shard.source_names.equal_to(name)) for name in names.slides):
        return True
    if any(len(shard.patients.equal_to(patient)) for patient in names.patients):
        return True
    unchanged = Shard(shard.path, shard.content, 0, shard.description.classes)
    wanted = Identities(sorted(names.ids)).wanted
    return bool((wanted_rows([unchanged], wanted) >= 0).any())


def _remove_leftovers(path: Path) -> int:
    """Delete what was left unfinished more than a day ago; how much is younger."""
    younger = 0
    for file in leftovers(path):
        if _is_young(file):
            younger += 1
        else:
            remove_any(file)
    return younger


def _containers(shard: Path) -> list[Path]:
    return [shard.with_suffix(suffix) for suffix in (".zarr", ".h5")]


def _files(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if not file.name.startswith(".")]
    except FileNotFoundError:
        return []
