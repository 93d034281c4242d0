"""Labels of stored features from a table: one row a slide, or one a patch."""

from __future__ import annotations

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
from patchknn.tables import read_table

# Positions in a table are rounded by whoever wrote it; patches lie further apart.
_REACH = 0.5
_Position = tuple[float, float]


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
    inputs: Iterable[FeaturePart | Problem], table: Path | None
) -> Iterator[FeaturePart | Problem]:
    """Parts with what a table says of them; without a table they pass as they are.

    The CSV, TSV or Parquet table has the columns ``slide`` (the source's name, or that of its file
    or slide, with or without suffix) and ``label``, and any of ``patient``, ``split``, ``x`` and
    ``y`` (both or neither, in the unit of the file's coordinates). A row with a position speaks of
    that patch and goes before a row of the whole slide, which goes before the file's own label
    (an empty one does not). A file without a row and without labels of its own is a Problem and
    left out; so is a row without features, and patches that a file does not hold. Raises
    InputError where the table cannot be read, contradicts itself, or names two slides at once.
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
            yield from _apply(part, table, slides, short, owners)
    for cell, slide in slides.items():
        if cell not in owners:
            text = f"{table}, line {slide.line}: there are no features of {cell}."
            yield Problem(cell, text)


def _apply(
    part: FeaturePart,
    table: Path,
    slides: dict[str, _Slide],
    short: dict[str, str],
    owners: dict[str, str],
) -> Iterator[FeaturePart | Problem]:
    labels, patients, splits = list(part.labels), list(part.patients), list(part.splits)
    names = [*dict.fromkeys(part.sources)] or [part.aliases[0]]
    rows: dict[str, list[int]] = {name: [] for name in names}
    for number, name in enumerate(part.sources):
        rows[name].append(number)
    for name in names:
        cell = _cell(name, part.aliases if len(names) == 1 else (), slides, short)
        if cell is None:
            if len(part) and part.origin.kind == "hdf5" and not any(part.labels):
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
            yield Problem(cell, text)
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
    table = read_table(path, required=["slide", "label"])
    if ("x" in table.columns) != ("y" in table.columns):
        message = f"{path} has only one of the columns x and y; a position needs both."
        raise InputError(message)
    positions: list[tuple[float | None, float | None]] = [(None, None)] * len(table.rows)
    if "x" in table.columns:
        positions = list(zip(table.numbers("x"), table.numbers("y"), strict=True))
    slides: dict[str, _Slide] = {}
    for row, line, (x, y) in zip(table.rows, table.lines, positions, strict=True):
        cell, patient = row["slide"], row.get("patient")
        if cell is None or (x is None) != (y is None):
            lack = "the slide is empty" if cell is None else "x or y is empty; give both or none"
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
