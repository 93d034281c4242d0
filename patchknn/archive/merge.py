"""Taking the rows of other archives in: each patch once, in one snapshot."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchknn.archive.change_writer import WrittenChange
from patchknn.archive.counting import Labels, new_patients, totals_of
from patchknn.archive.locate import Wanted
from patchknn.archive.manifest import ChangeEntry, Manifest
from patchknn.archive.paths import moved_path
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.rows import Rows, Source
from patchknn.archive.settings import ArchiveSettings, read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_writer import WrittenShard, write_shard
from patchknn.archive.snapshot import Snapshot, open_archive, patch_id
from patchknn.archive.strings import name_key
from patchknn.archive.told import told_of
from patchknn.errors import ConflictError

_NAMED = 5  # conflicts that the sentence names


class Other(NamedTuple):
    """An archive to be merged; ``prefix`` goes before the names of its slides and patients."""

    path: Path
    prefix: str | None = None


class LabelConflict(NamedTuple):
    """One patch that both have, with two labels; that of the archive merged into stays."""

    id: str
    kept: str | None
    other: str | None
    archive: str


class Merge(NamedTuple):
    """What was taken in: rows, rows there before, sources, and labels that disagree."""

    rows: int
    duplicates: int
    sources: int
    conflicts: tuple[LabelConflict, ...]
    number: int | None


def merge_archives(
    path: Path,
    others: Sequence[Other],
    *,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Merge:
    """Add the live rows of other archives to the one at ``path``, as one step.

    A patch that is there with the same source content is kept once, with the label it has; of the
    others it is told here too who relabelled them. Tables that are attached do not come along.
    Raises ConflictError where another archive has another encoder or settings, or where one name
    means two contents; nothing is taken in then.
    """
    settings = read_settings(path)
    snapshots = [(other, open_archive(other.path)) for other in others]
    for _, snapshot in snapshots:
        _check_alike(path, settings, snapshot)
    repeated = _repeated(snapshots)
    ready: dict[str, WrittenShard] = {}
    report = Merge(0, 0, 0, (), None)

    def merged(newest: Snapshot) -> Revision | None:
        nonlocal report
        taking = _Taking(newest, repeated)
        used: dict[str, WrittenShard] = {}
        told: list[tuple[WrittenChange, ChangeEntry]] = []
        try:
            for other, snapshot in snapshots:
                before = len(used)
                taking.taken_ids = set()
                for shard in snapshot.shards:
                    rows = taking.new_rows(other, snapshot, shard)
                    if rows is None or dry_run:
                        continue
                    key = _key(other, shard, rows)
                    used[key] = ready.get(key) or write_shard(
                        *(path, settings, rows),
                        container=shard.description.container,
                        run_id=run_id,
                        new_sources=0,
                    )
                    ready[key] = used[key]
                if len(used) > before:
                    told += told_of(snapshot, newest, taking.taken_ids, _before(other))
            report = Merge(
                taking.rows, taking.duplicates, taking.sources, tuple(taking.label_conflicts), None
            )
            for key in ready.keys() - used.keys():
                ready.pop(key).remove()  # of a race that was lost
            if not used:
                return None
            manifest = _next(newest, taking, list(used.values()), [entry for _, entry in told])
        except BaseException:
            for written in ready.values():
                written.remove()
            for change, _ in told:
                change.remove()
            raise
        return Revision(manifest, [*used.values(), *(change for change, _ in told)])

    if dry_run:
        merged(open_archive(path))
        return report
    published = publish_revision(path, settings, merged, action="merge", run_id=run_id)
    return report._replace(number=None if published is None else published.number)


class _Taking:
    """What of the others the newest snapshot lacks, shard by shard."""

    def __init__(self, newest: Snapshot, repeated: set[str]) -> None:
        self._newest = newest
        self._repeated = repeated
        self._taken: dict[str, tuple[Source, str]] = {}
        self._ids: dict[str, str | None] = {}  # of sources that come from several shards
        self.rows = self.duplicates = self.sources = 0
        self.label_conflicts: list[LabelConflict] = []
        self.labels: Labels = Counter()
        self.patients: set[str | None] = set()
        self.taken_ids: set[str] = set()

    def new_rows(self, other: Other, snapshot: Snapshot, shard: Shard) -> Rows | None:
        """The rows of one shard that are to be added, None where there are none."""
        rows = shard.rows()
        rows.labels, rows.classes = np.array(shard.labels), snapshot.classes
        if shard.edits.is_any:
            rows = rows.take(shard.live_rows())
        if not len(rows):
            return None
        rows = rows.with_sources(
            tuple(_prefixed(s, other, self._newest.path) for s in rows.sources)
        )
        self._check_sources(rows, other)
        present = self._there(rows, other)
        self.duplicates += int(present.sum())
        rows = rows.take(~present)
        if not len(rows):
            return None
        self.rows += len(rows)
        if snapshot.manifest.relabellings:
            names = [rows.sources[number].name for number in rows.source.tolist()]
            self.taken_ids.update(
                patch_id(name, *xy) for name, xy in zip(names, rows.coords.tolist(), strict=True)
            )
        words = (*rows.classes, None)
        self.labels.update(words[number] for number in rows.labels.tolist())
        used = np.unique(rows.source).tolist()
        self.patients.update(rows.sources[number].patient for number in used)
        self._count_sources(rows, other)
        return rows

    def _check_sources(self, rows: Rows, other: Other) -> None:
        used = [rows.sources[number] for number in np.unique(rows.source).tolist()]
        there = self._newest.find_sources([source.name for source in used])
        wrong = []
        for source in used:
            known = there.get(source.name) or self._taken.get(source.name, (None, ""))[0]
            if known is not None and not known.same_content(source):
                wrong.append(source.name)
        if wrong:
            names = ", ".join(map(repr, wrong[:_NAMED]))
            more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
            message = (
                f"{other.path} and {self._newest.path} hold different slides or images of one "
                f"name: {names}{more}; merge with --prefix SITE={other.path}."
            )
            raise ConflictError(message)

    def _there(self, rows: Rows, other: Other) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which rows are there already; where labels differ, that is noted."""
        names = [rows.sources[number].name for number in rows.source.tolist()]
        keys = {source.name: name_key(source.name) for source in rows.sources}
        wanted = Wanted(names, np.array([keys[n] for n in names], np.uint64), rows.coords)
        found = self._newest.rows_of(wanted)
        present = found >= 0
        labels = (*rows.classes, None)
        for row in np.flatnonzero(present).tolist():
            self._compare(
                patch_id(names[row], *rows.coords[row].tolist()),
                self._newest.row(int(found[row])).label,
                labels[rows.labels[row]],
                other,
            )
        for row, name in enumerate(names):
            if name in self._repeated and not present[row]:
                identity = patch_id(name, *rows.coords[row].tolist())
                if identity in self._ids:
                    present[row] = True
                    self._compare(identity, self._ids[identity], labels[rows.labels[row]], other)
        return present

    def _compare(self, identity: str, kept: str | None, label: str | None, other: Other) -> None:
        if kept != label:
            self.label_conflicts.append(LabelConflict(identity, kept, label, str(other.path)))

    def _count_sources(self, rows: Rows, other: Other) -> None:
        used = [rows.sources[number] for number in np.unique(rows.source).tolist()]
        there = self._newest.find_sources([source.name for source in used])
        for source in used:
            if source.name not in there and source.name not in self._taken:
                self.sources += 1
            self._taken.setdefault(source.name, (source, str(other.path)))
        labels = (*rows.classes, None)
        for row, (number, label) in enumerate(
            zip(rows.source.tolist(), rows.labels.tolist(), strict=True)
        ):
            name = rows.sources[number].name
            if name in self._repeated:
                self._ids[patch_id(name, *rows.coords[row].tolist())] = labels[label]


def _next(
    newest: Snapshot,
    taking: _Taking,
    written: Sequence[WrittenShard],
    told: Sequence[ChangeEntry],
) -> Manifest:
    manifest = newest.manifest.unchanged()
    names = [name for one in written for name in one.description.classes]
    return manifest._replace(
        shards=manifest.shards.followed_by(one.entry for one in written),
        classes=tuple(dict.fromkeys([*manifest.classes, *names])),
        sources=manifest.sources + taking.sources,
        label_history=(*manifest.label_history, *told),
        rows_added=taking.rows,
        sources_added=taking.sources,
        totals=totals_of(newest).changed(
            taking.labels,
            patients=new_patients(newest, taking.patients),
            shards=[one.description for one in written],
        ),
    )


def _prefixed(source: Source, other: Other, archive: Path) -> Source:
    source = source._replace(path=moved_path(source.path, other.path, archive))
    if other.prefix is None:
        return source
    patient = None if source.patient is None else _before(other) + source.patient
    return source._replace(name=_before(other) + source.name, patient=patient)


def _before(other: Other) -> str:
    return "" if other.prefix is None else f"{other.prefix}/"


def _repeated(snapshots: Sequence[tuple[Other, Snapshot]]) -> set[str]:
    """Names, with their prefixes, of sources that lie in several shards of the others."""
    seen: set[str] = set()
    repeated: set[str] = set()
    for other, snapshot in snapshots:
        before = _before(other)
        for shard in snapshot.shards:
            names = {before + name for name in shard.source_names.take(shard.live_sources())}
            repeated |= names & seen
            seen |= names
    return repeated


def _check_alike(path: Path, settings: ArchiveSettings, other: Snapshot) -> None:
    ours, theirs = settings._asdict(), other.settings._asdict()
    if ours["encoder_fingerprint"] != theirs["encoder_fingerprint"]:
        message = (
            f"{other.path} is of the encoder {theirs['encoder_fingerprint'][:16]}, {path} of "
            f"{ours['encoder_fingerprint'][:16]}: bring one to the other's encoder first by "
            "'patchknn archive reencode'."
        )
        raise ConflictError(message)
    different = [
        f"{name} {theirs[name]} (here {ours[name]})"
        for name in ours
        if name != "archive_id" and ours[name] != theirs[name]
    ]
    if different:
        message = f"{other.path} was made with other settings: {', '.join(different)}."
        raise ConflictError(message)


def _key(other: Other, shard: Shard, rows: Rows) -> str:
    digest = hashlib.sha256(f"{other.path} {other.prefix} {shard.uuid}\n".encode())
    digest.update(rows.coords.tobytes() + rows.source.tobytes() + rows.labels.tobytes())
    return digest.hexdigest()
