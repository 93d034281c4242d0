"""Going on with what is whole: what is damaged is put aside, what is lost is said row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchknn.archive.change import CHANGES
from patchknn.archive.description import SHARDS
from patchknn.archive.edits import edits_of
from patchknn.archive.manifest import ChangeEntry, Manifest
from patchknn.archive.manifests import (
    MANIFESTS,
    NEWEST,
    manifest_file,
    numbers_and_problem,
    publish,
    read_manifest_file,
)
from patchknn.archive.runs import RUNS
from patchknn.archive.salvage import Lost, Place, salvage, salvaged_rows
from patchknn.archive.settings import ENCODER, ArchiveSettings, read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_list import ShardList
from patchknn.archive.shard_writer import WrittenShard, write_shard
from patchknn.archive.verify_changes import change_findings
from patchknn.bundle import load_bundle
from patchknn.errors import DamageError, InputError, PatchknnError
from patchknn.files import read_json

DAMAGED = "damaged"


class Repair(NamedTuple):
    """What came of it.

    ``lost``: rows that are gone; ``rewritten``: shards that were written again from what was
    whole; ``undone``: changes and snapshots that are lost, so that their rows are as before;
    ``aside``: files below ``damaged/``; ``number`` of the new snapshot, None where none was needed.
    """

    lost: tuple[Lost, ...]
    rewritten: tuple[str, ...]
    undone: tuple[str, ...]
    aside: tuple[str, ...]
    number: int | None


class _Found(NamedTuple):
    """A snapshot's shards that stay as they are, those to be written, and all that is damaged."""

    kept: list[Shard]
    again: list[Shard]
    lost: list[Lost]
    bad_shards: set[str]
    bad_changes: list[ChangeEntry]


def repair(path: Path, *, run_id: str | None = None) -> Repair:
    """Publish a snapshot of what is whole, and put aside what is damaged and all before it.

    Nothing is deleted. Raises DamageError where the settings or the encoder are damaged, or no
    manifest can be read: these must come from a copy.
    """
    settings = read_settings(path)
    bundle = load_bundle(path / ENCODER)
    if bundle.fingerprint != settings.encoder_fingerprint:
        message = f"{bundle.directory} is not the encoder of the archive: restore it from a copy."
        raise DamageError(message)
    numbers, newest_gone = numbers_and_problem(path)
    manifests = {n: m for n in numbers if (m := _readable(path, settings, n)) is not None}
    if not manifests:
        message = f"{path} has no manifest that can be read: restore one from a copy."
        raise DamageError(message)
    broken = [manifest_file(path, n) for n in numbers if n not in manifests]
    aside = _Aside(path)
    aside.put(broken)  # the newest of the others is the newest from here on
    aside.put(_damaged_runs(path))
    newest = manifests[max(manifests)]
    undone = [f"snapshot {number}" for number in numbers if number > newest.number]
    if newest_gone is not None:
        undone.append("the newest snapshot")
    if undone:
        aside.put(sorted((path / MANIFESTS).glob(f"{NEWEST}*")))
    place = Place(path, settings, bundle)
    found = _look(place, newest)
    older = _damaged_before(place, manifests.values(), found)
    undone += [
        f"a {entry.kind} of {entry.rows} rows"
        for entry in found.bad_changes
        if entry in newest.changes
    ]
    number = None
    if undone or broken or found.bad_shards or found.bad_changes or older:
        rewritten = _rewritten(place, newest, found, run_id)
        try:
            manifest = _published(place, newest, found, rewritten, run_id)
        except PatchknnError:
            for one in rewritten:
                one.remove()
            raise
        number = manifest.number
        aside.put(manifest_file(path, n) for n in manifests)
        bad = found.bad_shards | older
        aside.put(f for uuid in sorted(bad) for f in _files(path / SHARDS, uuid))
        aside.put(f for e in found.bad_changes for f in _files(path / CHANGES, e.uuid))
    return Repair(
        lost=tuple(found.lost),
        rewritten=tuple(
            sorted(shard.uuid for shard in found.again if shard.uuid in found.bad_shards)
        ),
        undone=tuple(undone),
        aside=tuple(aside.names),
        number=number,
    )


def _look(place: Place, newest: Manifest) -> _Found:
    bad_changes = [
        entry
        for entry in (*newest.label_history, *newest.changes)
        if any(change_findings(place.path, entry, lambda _: None))
    ]
    good = newest._replace(changes=tuple(e for e in newest.changes if e not in bad_changes))
    edits = edits_of(place.path, good)
    found = _Found([], [], [], set(), bad_changes)
    for entry in newest.shards:
        one = salvage(place, entry, newest.classes, edits.get(entry.uuid))
        if one.damaged:
            found.bad_shards.add(entry.uuid)
        found.lost.extend(one.lost)
        if one.shard is not None and (one.damaged or one.shard.edits.is_any):
            found.again.append(one.shard)
        elif one.shard is not None:
            found.kept.append(one.shard)
    return found


def _damaged_before(place: Place, manifests: Iterable[Manifest], found: _Found) -> set[str]:
    """Damaged shards that earlier snapshots name; damaged changes of theirs join ``found``."""
    seen = {shard.uuid for shard in (*found.kept, *found.again)} | found.bad_shards
    seen_changes = {entry.uuid for entry in found.bad_changes}
    bad = set()
    for manifest in manifests:
        for entry in manifest.shards:
            if entry.uuid not in seen:
                seen.add(entry.uuid)
                if salvage(place, entry, manifest.classes).damaged:
                    bad.add(entry.uuid)
        for change in (*manifest.label_history, *manifest.changes):
            if change.uuid not in seen_changes:
                seen_changes.add(change.uuid)
                if any(change_findings(place.path, change, lambda _: None)):
                    found.bad_changes.append(change)
    return bad


def _rewritten(
    place: Place, newest: Manifest, found: _Found, run_id: str | None
) -> list[WrittenShard]:
    """What is whole of the shards to be written again, written: all of them or none."""
    written: list[WrittenShard] = []
    try:
        for shard in found.again:
            rows = salvaged_rows(shard, place.bundle, newest.classes)
            if len(rows):
                written.append(
                    write_shard(
                        *(place.path, place.settings, rows),
                        container=shard.description.container,
                        run_id=run_id,
                        new_sources=0,
                    )
                )
    except BaseException:
        for one in written:
            one.remove()
        raise
    return written


def _published(
    place: Place,
    newest: Manifest,
    found: _Found,
    rewritten: Sequence[WrittenShard],
    run_id: str | None,
) -> Manifest:
    entries = {entry.uuid: entry for entry in newest.shards}
    shards = ShardList(
        [*(entries[shard.uuid] for shard in found.kept), *(one.entry for one in rewritten)]
    )
    bad = {entry.uuid for entry in found.bad_changes}
    history = newest.relabellings
    keys = [shard.source_keys for shard in found.kept]

    def repaired(parent: Manifest) -> Manifest:
        if parent.nonce != newest.nonce:
            message = f"{place.path}: another process published meanwhile; repair it once more."
            raise PatchknnError(message)
        for one in rewritten:
            one.rename()
            written = Shard(place.path, one.description, 0, one.description.classes)
            keys.append(written.source_keys)
        return parent._replace(
            shards=shards,
            changes=(),
            sources=len(np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]))),
            label_history=tuple(entry for entry in history if entry.uuid not in bad),
            rows_removed=sum(one.rows for one in found.lost),
            totals=None,
        )

    manifest = publish(
        place.path, place.settings.archive_id, repaired, action="repair", run_id=run_id
    )
    assert manifest is not None
    return manifest


def _readable(path: Path, settings: ArchiveSettings, number: int) -> Manifest | None:
    try:
        return read_manifest_file(path, settings.archive_id, number)
    except DamageError:
        return None


def _damaged_runs(path: Path) -> Iterator[Path]:
    for file in sorted((path / RUNS).glob("*.json")):
        try:
            read_json(file)
        except (InputError, OSError):
            yield file


def _files(folder: Path, uuid: str) -> list[Path]:
    return sorted(folder.glob(f"{uuid}.*"))


class _Aside:
    """Moves files below ``damaged/<time>/``, where they keep their places."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path / DAMAGED / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        self.names: list[str] = []

    def put(self, files: Iterable[Path]) -> None:
        """Move them, as far as they are there."""
        for file in files:
            inner = file.relative_to(self._path)
            place = self._folder / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                file.rename(place)
            except FileNotFoundError:
                continue
            self.names.append(inner.as_posix())
