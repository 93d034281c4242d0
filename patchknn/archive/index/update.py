"""Bring an archive's index up to date: build, merge, and tidy up after what was replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchknn.archive.index.build import build_segment
from patchknn.archive.index.cover import Cover, choose_cover
from patchknn.archive.index.layout import MAX_ROWS
from patchknn.archive.index.names import INDEX, segment_name, segments_folder
from patchknn.archive.index.plan import plan_merge
from patchknn.archive.index.seen import Seen
from patchknn.archive.index.segment import Segment
from patchknn.archive.index.tidying import DAY, remove_mosaics, tidy
from patchknn.archive.manifests import read_manifest
from patchknn.archive.opening import open_shards
from patchknn.archive.settings import ArchiveSettings, read_settings
from patchknn.archive.shard import Shard

_LOCK = ".lock"
_ROUNDS = 100  # each is another writer's shard; so many in a row belong to somebody else


@dataclass(frozen=True)
class IndexReport:
    """What an update came to.

    ``built`` segments over ``indexed`` rows, of which ``added`` had no index before; ``segments``
    now serve ``rows`` rows; ``removed``: folders deleted; ``busy``: another process is at it, and
    does this one's work too; ``problems``: sentences about segments that are still unusable.
    """

    segments: int = 0
    rows: int = 0
    built: int = 0
    indexed: int = 0
    added: int = 0
    removed: int = 0
    busy: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _State:
    """``present``: names of the segments there were, whatever they are worth."""

    shards: tuple[tuple[Shard, str], ...]
    cover: Cover
    present: frozenset[str]


def update_index(
    path: Path,
    *,
    rebuild: bool = False,
    progress: Callable[[int], None] | None = None,
    wait: bool = True,
) -> IndexReport:
    """Index what the newest snapshot of the archive at ``path`` holds and no segment covers.

    ``rebuild``: everything, in one segment, and no other stays, nor do kept mosaics. Any number of
    processes may do so at once; one of them works, and the others ``wait`` for it or return at
    once. ``progress`` is told of rows.
    Raises DamageError where a shard is damaged, OSError where the archive cannot be written to.
    """
    settings = read_settings(path)
    segments_folder(path).mkdir(parents=True, exist_ok=True)
    with _locked(path, wait=wait) as held:
        if not held:
            return IndexReport(busy=True)
        built = indexed = added = 0
        grace = 0.0 if rebuild else DAY
        for _ in range(_ROUNDS):
            state = _state(path, settings, trusting=not rebuild)
            chosen = _groups(list(state.shards)) if rebuild else _due(state)
            if not chosen:
                break
            fresh = {shard.uuid for shard in state.cover.bare}
            for group in chosen:
                # It was there, and is not in use: it is damaged.
                name = segment_name((shard.uuid, checksum) for shard, checksum in group)
                broken = name in state.present and all(shard.uuid in fresh for shard, _ in group)
                build_segment(
                    path,
                    settings,
                    group,
                    advance=progress,
                    replace=rebuild or broken,
                    donor=None if rebuild else _donor(state, group),
                )
                built += 1
                indexed += sum(len(shard) for shard, _ in group)
                added += sum(len(shard) for shard, _ in group if shard.uuid in fresh)
            rebuild = False  # what comes meanwhile is added
        state = _state(path, settings)
        used = {segment.folder.name for segment in state.cover.segments}
        removed = tidy(segments_folder(path), used, grace)
        if not grace:
            removed += remove_mosaics(path)
        if state.cover.problems:  # those of what is superseded by now are over
            state = _state(path, settings)
    cover = state.cover
    return IndexReport(
        segments=len(cover.segments),
        rows=sum(segment.n_rows for segment in cover.segments),
        built=built,
        indexed=indexed,
        added=added,
        removed=removed,
        problems=cover.problems,
    )


def _state(path: Path, settings: ArchiveSettings, *, trusting: bool = True) -> _State:
    present = frozenset(entry.name for entry in segments_folder(path).iterdir())
    manifest = read_manifest(path, settings.archive_id)
    seen = Seen(path, manifest.shards)
    # What is built anew owes nothing to what there was.
    shards = open_shards(path, settings, manifest, witness=seen if trusting else None)
    checked = tuple(zip(shards, manifest.shards.checksum, strict=True))
    return _State(checked, choose_cover(path, settings, shards, seen), present)


def _due(state: _State) -> list[list[tuple[Shard, str]]]:
    segments = state.cover.segments
    new = {shard.uuid for shard in state.cover.bare}
    merged = plan_merge([segment.n_rows for segment in segments], sum(map(len, state.cover.bare)))
    for number in merged:
        new |= {shard.uuid for shard in segments[number].shards}
    return _groups([pair for pair in state.shards if pair[0].uuid in new])


def _donor(state: _State, group: list[tuple[Shard, str]]) -> Segment | None:
    """The segment that has at least half of the rows of a group, and no others."""
    uuids = {shard.uuid for shard, _ in group}
    rows = sum(len(shard) for shard, _ in group)
    for segment in state.cover.segments:
        if 2 * segment.n_rows >= rows and all(shard.uuid in uuids for shard in segment.shards):
            return segment
    return None


def _groups(shards: list[tuple[Shard, str]]) -> list[list[tuple[Shard, str]]]:
    """One group, or as many as a segment's numbering of rows demands."""
    groups: list[list[tuple[Shard, str]]] = []
    room = 0
    for pair in shards:
        if not groups or len(pair[0]) > room:
            groups.append([])
            room = MAX_ROWS
        groups[-1].append(pair)
        room -= len(pair[0])
    return groups


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the right to index, so that the same is not built twice; nothing depends on it.

    A file system without locks, or another user's lock, lets everyone in.
    """
    try:
        import fcntl

        descriptor = os.open(path / INDEX / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (ImportError, OSError):
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True
    finally:
        os.close(descriptor)
