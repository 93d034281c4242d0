"""Which slides are learnt from: a table's rows brought together with the grids of its slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchknn.datasets.patches import Problem
from patchknn.errors import ConflictError, InputError
from patchknn.slides.listing import stem_of
from patchknn.tables import Table, read_table
from patchknn.wholeslide.grids.grid import Grid, list_grids, open_grid
from patchknn.wholeslide.tasks.reading import Question, task_of
from patchknn.wholeslide.tasks.task import Floats, Task

_NAMES = ("slide", "name", "path")


@dataclass(frozen=True)
class Case:
    """One slide with what is known of it; an unknown patient counts as the slide itself."""

    name: str
    path: Path
    grid: Grid
    patient: str
    split: str | None = None


@dataclass(frozen=True)
class Cohort:
    """Slides (n), their targets (n, T) and the task; ``problems`` and ``remarks`` are sentences."""

    cases: tuple[Case, ...]
    targets: Floats
    task: Task
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()


def read_grids(folder: Path) -> tuple[list[tuple[Path, Grid]], list[Problem]]:
    """The grids below a folder, and those that cannot be read; raises InputError without one."""
    grids: list[tuple[Path, Grid]] = []
    problems = []
    for path in list_grids(folder):
        try:
            grids.append((path, open_grid(path)))
        except InputError as error:
            problems.append(Problem(str(path), str(error)))
    return grids, problems


def read_cohort(folder: Path, table: Path, question: Question) -> Cohort:
    """Grids of a folder, and what a table (CSV, TSV, Parquet) says of their slides.

    The table has ``slide`` (or ``name``, or ``path``), the columns asked about, and optionally
    ``patient`` and ``split``. A slide is known by its name, with or without its suffix. A row
    without a grid is a problem; rows that do not say what is asked, grids without tissue and grids
    without a row are left out with a remark. Raises InputError where nothing is left, UsageError
    for a question that cannot be, ConflictError where grids are of unlike encoders.
    """
    read = read_table(table, required=question.columns)
    column = next((name for name in _NAMES if name in read.columns), None)
    if column is None:
        message = f"{table} names no slides: it needs a column 'slide'."
        raise InputError(message)
    grids, problems = read_grids(folder)
    by_name = _by_name(grids)
    rows: list[int] = []
    found: list[tuple[Path, Grid]] = []
    for number, row in enumerate(read.rows):
        name = row[column]
        entry = None if name is None else by_name.get(_key(name)) or by_name.get(Path(name).name)
        if entry is None:
            told = f"{table}, line {read.lines[number]}"
            sentence = f"{told}: {name or 'a row without a name'} has no grid in {folder}."
            problems.append(Problem(name or told, sentence))
        else:
            rows.append(number)
            found.append(entry)
    if not rows:
        message = f"None of the {len(read.rows)} slides of {table} has a grid in {folder}."
        raise InputError(message)
    _no_slide_twice(read, rows, found)
    check_alike(found)
    task, targets = task_of(read, rows, question)
    cases = [_case(read, row, path, grid) for row, (path, grid) in zip(rows, found, strict=True)]
    known, tissue = ~np.isnan(targets).any(axis=1), np.array([c.grid.mask.any() for c in cases])
    keep = known & tissue
    without = len(grids) - len({path for path, _ in found})
    counts = {
        f"slides whose row does not say {' and '.join(question.columns)}": int((~known).sum()),
        "slides without tissue": int((known & ~tissue).sum()),
        f"grids that {table} does not name": without,
    }
    remarks = [f"{text}: {count}; they are left out." for text, count in counts.items() if count]
    kept = tuple(case for case, wanted in zip(cases, keep.tolist(), strict=True) if wanted)
    if not kept:
        message = f"{table} says of no slide with tissue what is asked: {question.columns[0]}."
        raise InputError(message)
    return Cohort(kept, targets[keep], task, tuple(problems), tuple(remarks))


def check_alike(grids: Sequence[tuple[Path, Grid]]) -> None:
    """Raise ConflictError where two grids are not of one encoder, patch size, step and mpp."""
    first = grids[0]
    for other in grids[1:]:
        for what, one, two in zip(_ALIKE, _identity(first[1]), _identity(other[1]), strict=True):
            if one != two:
                message = (
                    f"{first[0]} and {other[0]} differ in {what} ({one} and {two}): compress all "
                    "slides with one encoder and the same settings."
                )
                raise ConflictError(message)


_ALIKE = ("the encoder", "the features per place", "patch size", "stride", "mpp")


def _identity(grid: Grid) -> tuple[object, ...]:
    info = grid.info
    return info.encoder, grid.features.shape[1], info.patch_px, info.stride_px, info.mpp


def _key(name: str) -> str:
    return stem_of(name)


def _by_name(grids: Sequence[tuple[Path, Grid]]) -> dict[str, tuple[Path, Grid]]:
    """By name without suffix and, where that is unique, by bare file name."""
    names: dict[str, tuple[Path, Grid]] = {}
    for entry in grids:
        key = _key(entry[1].info.name)
        if key in names:
            message = f"{names[key][0]} and {entry[0]} are both grids of {key}; remove one of them."
            raise ConflictError(message)
        names[key] = entry
    bare: dict[str, list[tuple[Path, Grid]]] = {}
    for entry in grids:
        short = Path(entry[1].info.name).name
        for name in {short, stem_of(short)}:
            bare.setdefault(name, []).append(entry)
    return {name: found[0] for name, found in bare.items() if len(found) == 1} | names


def _no_slide_twice(table: Table, rows: Sequence[int], found: Sequence[tuple[Path, Grid]]) -> None:
    lines: dict[Path, int] = {}
    for row, (path, grid) in zip(rows, found, strict=True):
        line = table.lines[row]
        if path in lines:
            message = (
                f"{table.path}, lines {lines[path]} and {line}, both speak of {grid.info.name}; "
                "leave one row for each slide."
            )
            raise InputError(message)
        lines[path] = line


def _case(table: Table, row: int, path: Path, grid: Grid) -> Case:
    cells = table.rows[row]
    name = grid.info.name
    patient = cells.get("patient") or grid.info.patient or name
    return Case(name, path, grid, patient, cells.get("split"))
