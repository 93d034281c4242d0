"""Exports of an archive: which rows, under which names, and a place that appears as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.choice import Choice, RowsByShard, chosen_rows
from patchknn.archive.deleting import remove_any
from patchknn.archive.export_names import Names
from patchknn.archive.shard import Shard
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import ConflictError, InputError, PatchknnError
from patchknn.files import (
    errors_named,
    fsync_directory,
    fsync_file,
    read_json,
    temporary_beside,
    write_json,
)

# The underscore keeps it out of the way of readers of folders of Parquet files.
MARK_FILE = "_patchknn_export.json"
FORMAT = "patchknn-export"
FORMAT_VERSION = 1


class ExportPlan(NamedTuple):
    """The live rows of a snapshot that are to be exported, by the uuids of their shards.

    ``missing`` are slides and patients that were named and are not there. Two exports are the
    same where their ``mark`` is: the same rows of the same snapshot under the same names.
    """

    snapshot: Snapshot
    kind: str
    rows: RowsByShard
    missing: tuple[str, ...]
    names: Names
    is_part: bool
    mark: str

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.rows.values()))

    @property
    def n_sources(self) -> int:
        """How many sources they are of."""
        keys = [shard.source_keys[np.unique(shard.source[rows])] for shard, rows in self.parts()]
        return len(np.unique(np.concatenate(keys))) if keys else 0

    def parts(self) -> Iterator[tuple[Shard, npt.NDArray[np.int64]]]:
        """Each shard that has some of the rows, and these (m,), ascending."""
        for shard in self.snapshot.shards:
            if shard.uuid in self.rows:
                yield shard, self.rows[shard.uuid]

    def label(self, number: int) -> str | None:
        """The name of a class of the snapshot, None for −1."""
        return None if number < 0 else self.snapshot.classes[number]


class Export(NamedTuple):
    """What came of an export. ``is_old``: it was there already, and nothing was written."""

    out: Path
    files: int
    bytes: int
    is_old: bool
    notes: tuple[str, ...] = ()


def plan_export(
    snapshot: Snapshot,
    kind: str,
    choice: Choice,
    names: Names,
    options: Mapping[str, Any] | None = None,
) -> ExportPlan:
    """What an export as ``kind`` takes; ``options`` are what else makes it another one.

    Raises UsageError where the snapshot has no such class, InputError where no row is left.
    """
    chosen = chosen_rows(snapshot, choice)
    if not len(chosen):
        message = f"{snapshot.path} has no rows to export; see 'patchknn archive info'."
        raise InputError(message)
    content = {
        "archive": snapshot.settings.archive_id,
        "snapshot": snapshot.manifest.nonce,
        "to": kind,
        "slides": sorted(set(choice.slides)),
        "patients": sorted(set(choice.patients)),
        "labels": sorted(set(choice.labels)),
        **(options or {}),
    }
    is_part = choice.says_which or bool(choice.labels)
    mark = names.mark(content)
    return ExportPlan(snapshot, kind, chosen.rows, chosen.missing, names, is_part, mark)


def export_to(
    plan: ExportPlan,
    out: Path,
    write: Callable[[Path], tuple[str, ...]],
    mark_of: Callable[[Path], str | None],
) -> Export:
    """Let ``write`` make a file or folder under a temporary name, and call it ``out`` once whole.

    ``write`` returns notes for people. Where ``out`` is this very export (``mark_of`` it says so)
    nothing is done; ConflictError where it is anything else.
    """
    if out.exists():
        if mark_of(out) == plan.mark:
            return Export(out, *_size(out), is_old=True)
        message = (
            f"{out} exists and is not this export of {plan.snapshot.path}: choose another OUT, or "
            "delete it."
        )
        raise ConflictError(message)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(out)
    try:
        with errors_named(out, temporary):
            notes = write(temporary)
            _sync(temporary)
            if out.exists():
                message = f"{out} has appeared meanwhile: choose another OUT, or delete it."
                raise ConflictError(message)
            temporary.rename(out)
            fsync_directory(out.parent)
    finally:
        remove_any(temporary)
    return Export(out, *_size(out), is_old=False, notes=notes)


def write_mark(folder: Path, plan: ExportPlan) -> None:
    """Say in a folder which export it is."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "to": plan.kind}
    write_json(folder / MARK_FILE, {**content, "mark": plan.mark})


def folder_mark(folder: Path) -> str | None:
    """Which export a folder is, None where it does not say."""
    try:
        return str(read_json(folder / MARK_FILE).get("mark"))
    except (PatchknnError, OSError):
        return None


def _sync(path: Path) -> None:
    if path.is_file():
        fsync_file(path)
        return
    for root, _, files in os.walk(path):
        for name in files:
            fsync_file(Path(root, name))
        fsync_directory(Path(root))


def _size(path: Path) -> tuple[int, int]:
    """Files, and bytes in all."""
    if path.is_file():
        return 1, path.stat().st_size
    sizes = [Path(root, name).stat().st_size for root, _, files in os.walk(path) for name in files]
    return len(sizes), sum(sizes)
