"""Manifests: tables that say path, label and whatever else is known of images and patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchknn.datasets.patches import Patch, Problem
from patchknn.errors import InputError
from patchknn.slides.listing import source_name
from patchknn.tables import read_table

_MAX_POSITION = 2**31


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row: a patch of a slide where ``x`` and ``y`` are given, else a whole file."""

    name: str
    path: Path
    label: str | None
    patient: str | None
    split: str | None
    mpp: float | None
    annotations: Path | None
    x: int | None
    y: int | None

    def as_patch(self) -> Patch:
        """The patch of a row that has a position."""
        return Patch(
            self.name,
            self.path,
            "slide",
            self.x if self.x is not None else -1,
            self.y if self.y is not None else -1,
            self.label,
            self.patient,
            self.split,
            self.mpp,
        )


def read_manifest(path: Path, split: str | None = None) -> Iterator[ManifestRow | Problem]:
    """Rows of a CSV, TSV or Parquet manifest, all or those of one split.

    Columns: ``path`` (relative to the manifest), and any of ``label``, ``patient``, ``slide``
    (stands for an unknown patient: images of one slide belong together), ``split``, ``name``,
    ``x`` and ``y`` (level-0 pixels; both or neither; −1 means a plain image), ``mpp`` (µm/px of
    the image, or of the slide's level 0), ``annotations``. Raises InputError where the table
    cannot be read or lacks a needed column; a row without a path, with a position that is no
    pixel or with an mpp that is not above 0 is a Problem.
    """
    table = read_table(path, required=["path"] if split is None else ["path", "split"])
    columns = set(table.columns)
    if ("x" in columns) != ("y" in columns):
        message = f"{path} has only one of the columns x and y; a position needs both."
        raise InputError(message)
    numbers = {name: table.numbers(name) if name in columns else None for name in ("x", "y", "mpp")}
    folder = path.absolute().parent
    found = False
    for index, row in enumerate(table.rows):
        if split is not None and row.get("split") != split:
            continue
        found = True
        text = row["path"]
        if text is None:
            line = table.lines[index]
            yield Problem(f"{path}:{line}", f"{path}, line {line}: the path is empty.")
            continue
        x, y, mpp = (column[index] if column else None for column in numbers.values())
        problem = _problem(x, y, mpp)
        if problem is not None:
            name = row.get("name") or text
            yield Problem(name, f"{path}, line {table.lines[index]}: {problem}")
            continue
        file = folder / text
        annotations = row.get("annotations")
        plain = x is None or y is None or (x < 0 and y < 0)
        yield ManifestRow(
            name=row.get("name") or source_name(file, folder),
            path=file,
            label=row.get("label"),
            patient=row.get("patient") or row.get("slide"),
            split=row.get("split"),
            mpp=mpp,
            annotations=folder / annotations if annotations else None,
            x=None if plain or x is None else int(x),
            y=None if plain or y is None else int(y),
        )
    if not found:
        which = f" with split {split!r}" if split is not None else ""
        message = f"{path} has no rows{which}."
        raise InputError(message)


def _problem(x: float | None, y: float | None, mpp: float | None) -> str | None:
    for column, value in (("x", x), ("y", y)):
        if value is not None and not (value.is_integer() and abs(value) <= _MAX_POSITION):
            return f"{column} is {value:g}, not a pixel of level 0."
    if mpp is not None and mpp <= 0:
        return f"mpp is {mpp:g}; give µm/px above 0 or leave it empty."
    return None
