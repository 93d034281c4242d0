"""What the points of a map are coloured by: a class, an outcome, a patient, a field of records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from patchknn.archive.records import open_records
from patchknn.archive.snapshot import Snapshot, StoredRow
from patchknn.errors import UsageError
from patchknn.evaluation.outcomes import Outcomes

OF_OUTCOMES = ("right", "prediction")
OF_ROWS = ("label", "patient", "slide")


def check_colour(snapshot: Snapshot, colour: str, *, own_rows: bool) -> None:
    """Raise UsageError where nothing of the archive is called so.

    ``own_rows``: the archive's rows ask themselves, and so have outcomes.
    """
    if colour in OF_OUTCOMES and not own_rows:
        message = (
            f"--colour {colour}: the map shows the archive's rows, of which nothing was asked; "
            "leave DATA away, so that they ask themselves."
        )
        raise UsageError(message)
    if colour not in OF_ROWS + OF_OUTCOMES:
        with open_records(snapshot.path, snapshot.manifest.records) as records:
            records.field(colour, "--colour")


def colour_values(
    snapshot: Snapshot, rows: Sequence[StoredRow], colour: str, outcomes: Outcomes
) -> list[Any]:
    """The value of each row, None where it has none.

    ``right`` says whether the row's own neighbours voted for its label. Raises UsageError as
    ``check_colour``.
    """
    if colour == "label":
        return [row.label for row in rows]
    if colour == "patient":
        return [row.patient for row in rows]
    if colour == "slide":
        return [row.source for row in rows]
    if colour in OF_OUTCOMES:
        return _of_outcomes(rows, colour, outcomes)
    with open_records(snapshot.path, snapshot.manifest.records) as records:
        field = records.field(colour, "--colour")
        keys = [row.source if field.key == "slide" else row.patient for row in rows]
        known = records.values(field.number, [field.name], {key for key in keys if key})
        return [known.get(key or "", {}).get(field.name) for key in keys]


def _of_outcomes(rows: Sequence[StoredRow], colour: str, outcomes: Outcomes) -> list[Any]:
    correct = outcomes.correct
    order = np.argsort(outcomes.row, kind="stable")
    wanted = np.array([row.row for row in rows], np.int64)
    places = np.searchsorted(outcomes.row[order], wanted)
    values: list[Any] = []
    for row, place in zip(wanted.tolist(), places.tolist(), strict=True):
        number = int(order[place]) if place < len(order) else -1
        if number < 0 or outcomes.row[number] != row:
            values.append(None)
        elif colour == "right":
            values.append("right" if correct[number] else "wrong")
        else:
            predicted = int(outcomes.prediction[number])
            values.append(outcomes.classes[predicted] if predicted >= 0 else None)
    return values
