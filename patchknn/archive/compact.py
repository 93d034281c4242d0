"""Writing anew what changes and many small shards have left: fewer, whole, sorted shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchknn.archive.calibration import rewritten
from patchknn.archive.counting import totals_of
from patchknn.archive.manifest import Manifest
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.rows import Rows, concatenate
from patchknn.archive.settings import read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_list import ShardList
from patchknn.archive.shard_writer import WrittenShard, write_shard
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.archive.totals import bytes_of

# A shard is sorted in memory; those above a quarter are left as they are, where nothing changed.
_SHARD_BYTES = 512 << 20


class Compaction(NamedTuple):
    """How many shards, changes and removed rows gave way, and to how many shards."""

    shards_before: int
    shards_written: int
    changes: int
    rows_dropped: int
    number: int | None


class _Plan(NamedTuple):
    """Groups of shards, each to become one, by what is in them; the others stay."""

    groups: dict[str, list[Shard]]
    kept: list[Shard]


def compact(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002  (what the option is called everywhere)
    run_id: str | None = None,
    dry_run: bool = False,
    shard_bytes: int = _SHARD_BYTES,
) -> Compaction:
    """Drop removed rows, write changed labels into the shards, and join small shards.

    Ids, labels and history stay; earlier snapshots keep their shards until ``gc``. Shards are
    written in ``format``, or in that of most shards. What others publish meanwhile is taken in:
    only what they touched is written again.
    """
    settings = read_settings(path)
    ready: dict[str, WrittenShard | None] = {}
    report = Compaction(0, 0, 0, 0, None)

    def compacted(snapshot: Snapshot) -> Revision | None:
        nonlocal report
        plan = _plan(snapshot, shard_bytes)
        manifest = snapshot.manifest.unchanged()
        report = Compaction(
            shards_before=sum(map(len, plan.groups.values())),
            shards_written=len(plan.groups),
            changes=len(manifest.changes),
            rows_dropped=snapshot.n_rows - len(snapshot),
            number=None,
        )
        if dry_run or not plan.groups:
            return None
        container = format or _usual_format(snapshot)
        for key in set(ready) - set(plan.groups):
            del ready[key]
        try:
            for key, shards in plan.groups.items():
                if key not in ready:
                    rows = _joined(snapshot, shards)
                    ready[key] = None
                    if rows is not None:
                        ready[key] = write_shard(
                            *(path, settings, rows),
                            container=container,
                            run_id=run_id,
                            new_sources=0,
                        )
            written = [ready[key] for key in plan.groups]
            new = [one for one in written if one is not None]
            following = _next(manifest, plan, written)
            manifest = following._replace(
                calibration=rewritten(manifest, following),
                totals=totals_of(snapshot).changed(
                    {},
                    shards=[one.description for one in new],
                    without=[shard.description for some in plan.groups.values() for shard in some],
                ),
            )
        except BaseException:
            for one in ready.values():
                if one is not None:
                    one.remove()
            raise
        return Revision(manifest, new)

    if dry_run:
        compacted(open_snapshot(path, settings))
        return report
    published = publish_revision(path, settings, compacted, action="compact", run_id=run_id)
    return report._replace(number=None if published is None else published.number)


def _plan(snapshot: Snapshot, shard_bytes: int) -> _Plan:
    """Every shard that a change touches is written anew; of the others the small ones join them."""
    groups: list[list[Shard]] = []
    kept: list[Shard] = []
    # Where some rows have thumbnails and others none, all would be lost: these are not joined.
    last: dict[bool, list[Shard]] = {}
    room: dict[bool, int] = {}
    touched = {shard.uuid for shard in snapshot.shards if shard.edits.is_any}
    for shard in snapshot.shards:
        size = bytes_of(shard.description)
        if shard.uuid not in touched and size >= shard_bytes // 4:
            kept.append(shard)
            continue
        pictured = shard.has_thumbnails
        if pictured not in last or size > room[pictured]:
            last[pictured], room[pictured] = [], shard_bytes
            groups.append(last[pictured])
        last[pictured].append(shard)
        room[pictured] -= size
    chosen = {}
    for group in groups:
        if len(group) > 1 or group[0].uuid in touched:
            chosen[_key(group)] = group
        else:
            kept += group
    return _Plan(chosen, kept)


def _key(shards: Sequence[Shard]) -> str:
    """What a group holds: its shards, and what changes make of them."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(" ".join([shard.uuid, *shard.edits.uuids, "\n"]).encode())
    return digest.hexdigest()


def _joined(snapshot: Snapshot, shards: Sequence[Shard]) -> Rows | None:
    """The live rows of some shards with the labels of the snapshot, None where there are none."""
    parts = []
    for shard in shards:
        rows = shard.rows()
        rows.labels, rows.classes = np.array(shard.labels), snapshot.classes
        parts.append(rows.take(shard.live_rows()) if shard.edits.is_any else rows)
    joined = concatenate(parts)
    if not len(joined):
        return None
    used = np.unique(joined.labels[joined.labels >= 0]).tolist()
    numbers = np.full(len(joined.classes) + 1, -1, np.int32)
    numbers[used] = np.arange(len(used))
    joined.labels = numbers[joined.labels]
    joined.classes = tuple(joined.classes[number] for number in used)
    return joined


def _next(manifest: Manifest, plan: _Plan, written: Sequence[WrittenShard | None]) -> Manifest:
    kept = {shard.uuid for shard in plan.kept}
    new = [one for one in written if one is not None]
    descriptions = (*(s.description for s in plan.kept), *(one.description for one in new))
    used = {name for description in descriptions for name in description.classes}
    return manifest._replace(
        shards=ShardList(entry for entry in manifest.shards if entry.uuid in kept).followed_by(
            one.entry for one in new
        ),
        classes=tuple(name for name in manifest.classes if name in used),
        changes=(),
        label_history=manifest.relabellings,
    )


def _usual_format(snapshot: Snapshot) -> str:
    containers = [shard.description.container for shard in snapshot.shards]
    return max(sorted(set(containers)), key=containers.count)
