"""Which slides are learnt from: a table's rows brought together with the grids of its slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchknn.datasets.patches import Problem
from patchknn.errors import ConflictError, InputError
from patchknn.tables import Table, read_table
from patchknn.wholeslide.grids.grid import Grid, list_grids, open_grid
from patchknn.wholeslide.learning.grid_names import GridNames
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
    ``patient`` and ``split``; ``GridNames`` says which grid a row means. A row without a grid is a
    problem; rows that do not say what is asked, grids without tissue and grids without a row are
    left out with a remark. Raises InputError where nothing is left, UsageError
    for a question that cannot be, ConflictError where grids are of unlike encoders.
    """
    read = read_table(table, required=question.columns)
    column = next((name for name in _NAMES if name in read.columns), None)
    if column is None:
        message = f"{table} names no slides: it needs a column 'slide'."
        raise InputError(message)
    grids, problems = read_grids(folder)
    names = GridNames(grids)
    rows: list[int] = []
    found: list[tuple[Path, Grid]] = []
    for number, row in enumerate(read.rows):
        name = row[column]
        entry = None if name is None else names.find(name)
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
    pairs = list(zip(rows, found, strict=True))
    full = [(row, entry) for row, entry in pairs if entry[1].mask.any()]
    if not full:
        message = f"None of the {len(pairs)} slides of {table} that have a grid has tissue."
        raise InputError(message)
    task, targets = task_of(read, [row for row, _ in full], question)
    known = np.array(np.isfinite(targets).all(axis=1), np.bool_)
    counts = {
        f"slides whose row does not say {' and '.join(question.columns)}": int((~known).sum()),
        "slides without tissue": len(pairs) - len(full),
        f"grids that {table} does not name": len(grids) - len({path for path, _ in found}),
    }
    remarks = [f"{text}: {count}; they are left out." for text, count in counts.items() if count]
    nobodys = sum(
        told and not read.rows[row].get("patient") and entry[1].info.patient is None
        for (row, entry), told in zip(full, known.tolist(), strict=True)
    )
    if nobodys:
        remarks.append(
            f"slides whose patient is unknown: {nobodys}; each counts as a patient of its own, so "
            "that one patient may train and be judged: name patients in a 'patient' column."
        )
    kept = tuple(
        _case(read, row, *entry)
        for (row, entry), told in zip(full, known.tolist(), strict=True)
        if told
    )
    return Cohort(kept, targets[known], task, tuple(problems), tuple(remarks))


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
