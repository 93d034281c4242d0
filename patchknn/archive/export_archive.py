"""An archive as a fresh archive: the live rows, with their labels of now, and nothing of before."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from patchknn.archive.calibration import rewritten
from patchknn.archive.counting import Labels
from patchknn.archive.create import create_like
from patchknn.archive.export import Export, ExportPlan, export_to
from patchknn.archive.index.after_publishing import try_update_index
from patchknn.archive.manifest import RECORDS, RecordsEntry
from patchknn.archive.manifests import read_manifest_file
from patchknn.archive.records import records_file, sha256_of
from patchknn.archive.revisions import Revision, publish_revision
from patchknn.archive.rows import Rows, concatenate
from patchknn.archive.runs import new_run_id, read_run, write_run
from patchknn.archive.sealed import damage
from patchknn.archive.settings import read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_list import ShardList
from patchknn.archive.shard_writer import write_shard
from patchknn.archive.snapshot import Snapshot
from patchknn.archive.totals import NOTHING
from patchknn.errors import PatchknnError

_MARK = "export"
_SHARD_BYTES = 512 << 20  # as a writer makes them


def export_archive(
    plan: ExportPlan,
    out: Path,
    *,
    with_backbone: bool = True,
    record: Mapping[str, Any] | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> Export:
    """Write the rows as an archive of the same encoder, removals and corrections written in.

    Features, codes and thumbnails are the same bit for bit; small shards are joined. Attached
    records come along, unless only a part of the rows is exported or names are hidden: they may
    tell of others, or who somebody is. A calibration comes with all rows, and not with a part.
    ``record`` is the run's; with pseudonyms it is left out.
    The encoder bundle is copied as it is. Errors as ``export_to``, DamageError where a table of
    records is not the one that was attached.
    """

    def write(temporary: Path) -> tuple[str, ...]:
        create_like(temporary, plan.snapshot, with_backbone=with_backbone)
        run_id = new_run_id()
        told = {} if record is None or plan.names.is_hidden else dict(record)
        if plan.names.is_hidden:
            told["argv"] = ["patchknn", "archive", "export", "--to", "archive", "--deidentify"]
        counts = {"rows": plan.n_rows, "sources": plan.n_sources}
        write_run(temporary, run_id, {**told, "counts": counts, _MARK: plan.mark})
        return _fill(plan, temporary, out, run_id, shard_bytes)

    return export_to(plan, out, write, _mark_of)


def _fill(
    plan: ExportPlan, folder: Path, out: Path, run_id: str, shard_bytes: int
) -> tuple[str, ...]:
    settings = read_settings(folder)
    known: set[str] = set()
    patients: set[str] = set()
    labels: Labels = Counter()
    written = []
    for rows, container in _groups(plan, out, shard_bytes):
        sources = [rows.sources[number] for number in np.unique(rows.source).tolist()]
        names = {source.name for source in sources}
        patients |= {source.patient for source in sources if source.patient is not None}
        words = (*rows.classes, None)
        labels.update(words[number] for number in rows.labels.tolist())
        written.append(
            write_shard(
                *(folder, settings, rows),
                container=container,
                run_id=run_id,
                new_sources=len(names - known),
            )
        )
        known |= names
    records, notes = _records(plan, folder)
    totals = NOTHING.changed(
        labels, patients=len(patients), shards=[one.description for one in written]
    )
    used = {name for one in written for name in one.description.classes}
    entries = ShardList(one.entry for one in written)

    def filled(empty: Snapshot) -> Revision:
        manifest = empty.manifest.unchanged()._replace(
            shards=entries,
            classes=tuple(name for name in plan.snapshot.classes if name in used),
            sources=len(known),
            rows_added=sum(entries.rows),
            sources_added=len(known),
            records=records,
            totals=totals,
        )
        if not plan.is_part:  # the same rows and labels
            kept = rewritten(plan.snapshot.manifest, manifest)
            manifest = manifest._replace(calibration=kept)
        return Revision(manifest, written)

    publish_revision(folder, settings, filled, action="export", run_id=run_id)
    problem = try_update_index(folder)
    return notes if problem is None else (*notes, problem)


def _groups(plan: ExportPlan, out: Path, shard_bytes: int) -> Iterator[tuple[Rows, str]]:
    """Rows for one shard after another, and the container of the first that is in them."""
    parts: list[Rows] = []
    size, container, pictured = 0, "", False
    for shard, chosen in plan.parts():
        rows = _rows(plan, shard, chosen, out)
        nbytes = rows.features.nbytes + sum(map(len, rows.thumbnails or ()))
        has_pictures = rows.thumbnails is not None
        # Where some rows have thumbnails and others none, those of a shard would be lost.
        if parts and (size + nbytes > shard_bytes or has_pictures != pictured):
            yield _joined(parts), container
            parts, size = [], 0
        if not parts:
            container, pictured = shard.description.container, has_pictures
        parts.append(rows)
        size += nbytes
    yield _joined(parts), container


def _rows(plan: ExportPlan, shard: Shard, chosen: np.ndarray[Any, Any], out: Path) -> Rows:
    rows = shard.rows()
    rows.labels, rows.classes = np.array(shard.labels), plan.snapshot.classes
    rows = rows.take(chosen)
    used = set(np.unique(rows.source).tolist())
    archive = plan.snapshot.path
    # Those without a row are not written, and stay as they are.
    return rows.with_sources(
        tuple(
            plan.names.source(source, archive, out) if number in used else source
            for number, source in enumerate(rows.sources)
        )
    )


def _joined(parts: list[Rows]) -> Rows:
    rows = concatenate(parts)
    used = np.unique(rows.labels[rows.labels >= 0]).tolist()
    numbers = np.full(len(rows.classes) + 1, -1, np.int32)  # the last is where −1 points
    numbers[used] = np.arange(len(used))
    rows.labels = numbers[rows.labels]
    rows.classes = tuple(rows.classes[number] for number in used)
    return rows


def _records(plan: ExportPlan, folder: Path) -> tuple[tuple[RecordsEntry, ...], tuple[str, ...]]:
    """The tables that come along, copied, and a note on those that do not."""
    entries = plan.snapshot.manifest.records
    if not entries:
        return (), ()
    if plan.names.is_hidden or plan.is_part:
        why = "names are hidden" if plan.names.is_hidden else "only some rows are exported"
        names = ", ".join(entry.name for entry in entries)
        return (), (f"Its records are left out, for {why}: {names}.",)
    (folder / RECORDS).mkdir(exist_ok=True)
    for entry in entries:
        source, target = (records_file(path, entry.sha256) for path in (plan.snapshot.path, folder))
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            sentence = f"{source} cannot be copied ({error.strerror})."
            raise damage(plan.snapshot.path, sentence) from None
        if sha256_of(target) != entry.sha256:
            sentence = f"{source} was changed: its checksum is no longer its name."
            raise damage(plan.snapshot.path, sentence)
    return entries, ()


def _mark_of(out: Path) -> str | None:
    """Which export an archive began as, None where it is none or does not say."""
    try:
        run_id = read_manifest_file(out, read_settings(out).archive_id, 1).run_id
        record = None if run_id is None else read_run(out, run_id)
    except (PatchknnError, OSError):
        return None
    return None if record is None else str(record.get(_MARK))
