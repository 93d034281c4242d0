"""Tasks from what a table says of slides, and from what a slide model says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchknn.errors import InputError, UsageError
from patchknn.tables import Row, Table
from patchknn.wholeslide.tasks.classification import Classification
from patchknn.wholeslide.tasks.regression import Regression
from patchknn.wholeslide.tasks.survival import Survival
from patchknn.wholeslide.tasks.task import Floats, Task

_SEEN = {"1": 1.0, "true": 1.0, "yes": 1.0, "0": 0.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True)
class Question:
    """Which columns of a table are asked: ``label``, ``target``, or ``time`` and ``event``."""

    label: str | None = None
    target: str | None = None
    time: str | None = None
    event: str | None = None
    balanced: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs; raises UsageError where it asks two things, or half of one."""
        survival = (self.time, self.event)
        if any(survival) and not all(survival):
            message = "Survival needs both --time and --event."
            raise UsageError(message)
        asked = [kind for kind in ((self.label,), (self.target,), survival) if any(kind)]
        if len(asked) > 1:
            message = "Give one of --label, --target, and --time with --event."
            raise UsageError(message)
        return tuple(name for name in (asked[0] if asked else ("label",)) if name)


def task_of(table: Table, rows: list[int], question: Question) -> tuple[Task, Floats]:
    """The task, and its targets (n, T) for the numbered rows, NaN where a row does not say.

    Raises InputError where a cell is not what the task needs, or there is nothing to learn.
    """
    columns = question.columns
    if len(columns) == 2:
        return _survival(table, rows, columns)
    (column,) = columns
    if question.target is not None:
        numbers = np.array([_or_nan(n) for n in table.numbers(column)], np.float64)
        targets = numbers[rows].reshape(-1, 1)
        if len(np.unique(targets[~np.isnan(targets)])) < 2:
            message = f"{table.path}: {column} does not vary over the slides with tissue."
            raise InputError(message)
        return Regression(column), targets
    cells = [table.rows[row].get(column) for row in rows]
    classes = sorted({cell for cell in cells if cell is not None})
    if len(classes) < 2:
        found = f"they are all {classes[0]!r}" if classes else "none has one"
        message = (
            f"{table.path}: of the slides with tissue, {found} in {column!r}; "
            "a classification needs two classes."
        )
        raise InputError(message)
    number = {name: float(place) for place, name in enumerate(classes)}
    targets = np.array([number.get(cell or "", np.nan) for cell in cells]).reshape(-1, 1)
    return Classification(column, tuple(classes), question.balanced), targets


def task_from_json(values: Mapping[str, Any]) -> Task:
    """The inverse of ``as_json``; raises InputError for one that this patchknn does not know."""
    known = dict(values)
    kind = known.pop("kind", None)
    try:
        if kind == "classification":
            return Classification(known["column"], tuple(known["classes"]))
        if kind == "regression":
            return Regression(**known)
        if kind == "survival":
            return Survival(**known)
    except (KeyError, TypeError) as error:
        message = f"A slide model's task is not complete: {error}"
        raise InputError(message) from None
    message = f"A slide model answers {kind!r}, which this patchknn does not know: update it."
    raise InputError(message)


def _survival(table: Table, rows: list[int], columns: tuple[str, ...]) -> tuple[Task, Floats]:
    time, event = columns
    times = np.array([_or_nan(n) for n in table.numbers(time)], np.float64)[rows]
    seen = np.array([_seen(table, row, event) for row in rows], np.float64)
    if (times < 0).any():
        message = f"{table.path}: {time} is below 0 for a slide; give times since the beginning."
        raise InputError(message)
    targets = np.stack([times, seen], axis=1)
    if not (targets[~np.isnan(targets).any(axis=1), 1] > 0).any():
        message = f"{table.path}: no slide with tissue has the event; {event} is 1 where it is."
        raise InputError(message)
    return Survival(time, event), targets


def _seen(table: Table, row: int, column: str) -> float:
    cells: Row = table.rows[row]
    text = cells.get(column)
    if text is None:
        return np.nan
    value = _SEEN.get(text.lower(), _SEEN.get(text.removesuffix(".0")))
    if value is None:
        message = (
            f"{table.path}, line {table.lines[row]}: {column} is {text!r}; give 1 where the event "
            "was seen and 0 where it was not."
        )
        raise InputError(message)
    return value


def _or_nan(number: float | None) -> float:
    return np.nan if number is None else number
