"""Labels of stored features from a table: one row a slide, or one a patch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.datasets.entries import TILESET_SUFFIXES
from patchknn.datasets.patches import Problem
from patchknn.datasets.stored import FeaturePart
from patchknn.errors import InputError
from patchknn.slides.readers import SLIDE_SUFFIXES
from patchknn.tables import Table, read_table

# Positions in a table are rounded by whoever wrote it; patches lie further apart.
_REACH = 0.5
_Position = tuple[float, float]
_NAMES = ("slide", "name", "id")
_PATCH_ID = re.compile(r"(.+)@(-?[0-9]+)_(-?[0-9]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Unmatched(Problem):
    """Rows of a table of labels, ``rows`` of them, that no features were found for."""

    rows: int = 1


@dataclass
class _Said:
    """What one row says of a slide or patch."""

    label: str | None
    split: str | None
    line: int


@dataclass
class _Slide:
    line: int
    patient: str | None
    whole: _Said | None = None
    patches: dict[_Position, _Said] = field(default_factory=dict)


def labelled(
    inputs: Iterable[FeaturePart | Problem], table: Path | None, *, keep_unlabelled: bool = False
) -> Iterator[FeaturePart | Problem]:
    """Parts with what a table says of them; without a table they pass as they are.

    The CSV, TSV or Parquet table has the columns ``slide`` or ``name`` (the source's name, or that
    of its file or slide, with or without suffix) and ``label``, and any of ``patient``, ``split``,
    ``x`` and ``y`` (both or neither, in the unit of the part's coordinates); or ``id``, which says
    name and position as ``name@x_y``. A row with a position speaks of that patch and goes before a
    row of the whole slide, which goes before the file's own label (an empty one does not). A file
    without a row and without labels of its own is a Problem and left out, unless
    ``keep_unlabelled``; a row without features is Unmatched, and so are patches that a file does
    not hold. Raises InputError where the table cannot be read, contradicts itself, or names two
    slides at once.
    """
    if table is None:
        yield from inputs
        return
    slides = _read(table)
    short = _short_names(slides)
    owners: dict[str, str] = {}
    for part in inputs:
        if isinstance(part, Problem):
            yield part
        else:
            yield from _apply(part, table, slides, short, owners, keep_unlabelled=keep_unlabelled)
    for cell, slide in slides.items():
        if cell not in owners:
            text = f"{table}, line {slide.line}: there are no features of {cell}."
            rows = len(slide.patches) + (slide.whole is not None)
            yield Unmatched(cell, text, rows=rows)


def _apply(
    part: FeaturePart,
    table: Path,
    slides: dict[str, _Slide],
    short: dict[str, str],
    owners: dict[str, str],
    *,
    keep_unlabelled: bool,
) -> Iterator[FeaturePart | Problem]:
    labels, patients, splits = list(part.labels), list(part.patients), list(part.splits)
    names = [*dict.fromkeys(part.sources)] or [part.aliases[0]]
    rows: dict[str, list[int]] = {name: [] for name in names}
    for number, name in enumerate(part.sources):
        rows[name].append(number)
    for name in names:
        cell = _cell(name, part.aliases if len(names) == 1 else (), slides, short)
        if cell is None:
            may_lack = keep_unlabelled or part.origin.kind != "hdf5"
            if len(part) and not may_lack and not any(part.labels):
                text = f"{table} has no row of {name}: {part.origin.path} is left out."
                yield Problem(name, text)
                return
            continue
        if owners.setdefault(cell, name) != name:
            message = (
                f"{table}: {cell!r} stands for both {owners[cell]!r} and {name!r}; write their "
                "paths below the folder that was given."
            )
            raise InputError(message)
        slide = slides[cell]
        numbers = rows[name]
        for number in numbers:
            patients[number] = slide.patient or patients[number]
            if slide.whole is not None:
                labels[number] = slide.whole.label or labels[number]
                splits[number] = slide.whole.split
        missing = []
        nearest = _Nearest(part.coords, numbers)
        for position, said in slide.patches.items():
            found = nearest(position)
            if found is None:
                missing.append((position, said.line))
            else:
                labels[found], splits[found] = said.label, said.split or splits[found]
        if missing:
            (x, y), line = missing[0]
            text = (
                f"{table}: {len(missing)} of {len(slide.patches)} patches of {cell} are not in "
                f"{part.origin.path}, the first at {x:g}, {y:g} (line {line}); its coordinates "
                f"are in {part.origin.unit or 'a unit that it does not name'}."
            )
            yield Unmatched(cell, text, rows=len(missing))
    yield replace(part, labels=tuple(labels), patients=tuple(patients), splits=tuple(splits))


class _Nearest:
    """The row at a position, found by its rounded coordinates and their neighbours."""

    def __init__(self, coords: npt.NDArray[np.float64], rows: list[int]) -> None:
        self._coords = coords
        self._rows = rows
        self._cells: dict[tuple[int, int], list[int]] | None = None

    def __call__(self, position: _Position) -> int | None:
        if self._cells is None:  # most slides have labels as a whole
            self._cells = {}
            for row in self._rows:
                x, y = self._coords[row].tolist()
                self._cells.setdefault((round(x), round(y)), []).append(row)
        x, y = position
        near = [
            row
            for dx in (0, -1, 1)
            for dy in (0, -1, 1)
            for row in self._cells.get((round(x) + dx, round(y) + dy), ())
        ]
        distances = [float(np.abs(self._coords[row] - position).max()) for row in near]
        if not distances or min(distances) > _REACH:
            return None
        return near[distances.index(min(distances))]


def _read(path: Path) -> dict[str, _Slide]:
    table = read_table(path, required=["label"])
    column = next((name for name in _NAMES if name in table.columns), None)
    if column is None:
        read_table(path, required=["slide"])
    slides: dict[str, _Slide] = {}
    places = _places(table, column or "slide")
    for row, line, (cell, x, y) in zip(table.rows, table.lines, places, strict=True):
        patient = row.get("patient")
        if cell is None or (x is None) != (y is None):
            lack = (
                f"the {column} is empty" if cell is None else "x or y is empty; give both or none"
            )
            message = f"{path}, line {line}: {lack}."
            raise InputError(message)
        slide = slides.setdefault(cell, _Slide(line, patient))
        if patient is not None and slide.patient not in {None, patient}:
            message = (
                f"{path}, line {line}: {cell} is of patient {patient}, and of {slide.patient} in "
                f"a row before; correct one."
            )
            raise InputError(message)
        slide.patient = slide.patient or patient
        said = _Said(row["label"], row.get("split"), line)
        if x is None or y is None:
            before, slide.whole = slide.whole, said
        else:
            before, slide.patches[x, y] = slide.patches.get((x, y)), said
        if before is not None and (before.label, before.split) != (said.label, said.split):
            message = f"{path}, lines {before.line} and {line} contradict each other on {cell}."
            raise InputError(message)
    return slides


def _places(table: Table, column: str) -> Iterator[tuple[str | None, float | None, float | None]]:
    """The name and position of each row; a plain image has none."""
    names = [row[column] for row in table.rows]
    if column == "id":
        for name in names:
            match = _PATCH_ID.fullmatch(name or "")
            yield (match[1], float(match[2]), float(match[3])) if match else (name, None, None)
        return
    if ("x" in table.columns) != ("y" in table.columns):
        message = f"{table.path} has only one of the columns x and y; a position needs both."
        raise InputError(message)
    if "x" not in table.columns:
        yield from ((name, None, None) for name in names)
        return
    for name, x, y in zip(names, table.numbers("x"), table.numbers("y"), strict=True):
        is_plain = x is not None and y is not None and x < 0 and y < 0
        yield (name, None, None) if is_plain else (name, x, y)


def _short_names(slides: dict[str, _Slide]) -> dict[str, str]:
    """Cells by their name without suffix, where that is the name of one alone."""
    cells: dict[str, list[str]] = {}
    for cell in slides:
        cells.setdefault(_without_suffix(cell), []).append(cell)
    return {name: found[0] for name, found in cells.items() if len(found) == 1}


def _cell(
    name: str, aliases: tuple[str, ...], slides: dict[str, _Slide], short: dict[str, str]
) -> str | None:
    """Which cell of the table means a source: its own name first, then its other names."""
    candidates = [name, *aliases]
    for candidate in candidates:
        if candidate in slides:
            return candidate
    for candidate in [*candidates, *(_without_suffix(c) for c in candidates)]:
        if candidate in short:
            return short[candidate]
    return None


def _without_suffix(name: str) -> str:
    """A name without the suffix of a slide or of an HDF5 file; a dot in the name itself stays."""
    for suffix in (".ome.tif", ".ome.tiff", *TILESET_SUFFIXES, *SLIDE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
