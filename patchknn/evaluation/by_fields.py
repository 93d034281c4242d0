"""Figures by what is known of the queries: a field of the attached records, slide or patient."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.records import KEYS, Field, open_records
from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.intervals import bootstrap_intervals, n_patients
from patchknn.search.query import Query

FIGURES = ("accuracy", "mean_class_recall", "precision_at_k", "confidence_auroc")
COLUMNS = ("field", "value", "method", "n", "patients", *FIGURES)
_UNKNOWN = -1


class QueryFields:
    """Takes queries as they are answered; knows then which value of each field they have.

    ``names`` are fields of the snapshot's records, in small or capital letters, or ``slide`` or
    ``patient`` itself. The records are those of the query's slide or patient, which need not be
    archived. Raises UsageError where there is no such field, DamageError where a table is not as
    it was attached.
    """

    def __init__(self, snapshot: Snapshot, names: Sequence[str]) -> None:
        self._records = open_records(snapshot.path, snapshot.manifest.records)
        self._fields: dict[str, Field | None] = {}
        for name in names:
            field = None if name in KEYS else self._records.field(name, "--by")
            self._fields[name if field is None else field.name] = field
        self._numbers: dict[str, dict[str, int]] = {key: {} for key in KEYS}
        self._seen = {key: array("q") for key in KEYS}

    @property
    def names(self) -> tuple[str, ...]:
        """The fields as the tables spell them."""
        return tuple(self._fields)

    def add(self, query: Query) -> None:
        """Take the next query."""
        for key, value in (("slide", query.source), ("patient", query.patient)):
            numbers = self._numbers[key]
            number = _UNKNOWN if value is None else numbers.setdefault(value, len(numbers))
            self._seen[key].append(number)

    def values(self, name: str) -> tuple[list[Any], npt.NDArray[np.int64]]:
        """The values of a field, and for each query (n,) which of them is its own.

        Sorted, None for what is unknown in the end.
        """
        field = self._fields[name]
        key = name if field is None else field.key
        keys = list(self._numbers[key])
        if field is None:
            found: list[Any] = [*keys]
        else:
            records = self._records.values(field.number, [field.name], keys)
            found = [records.get(one, {}).get(field.name) for one in keys]
        known = {value for value in found if value is not None}
        # One field has values of one type, but for infinities, which are words.
        values = [*sorted(known, key=lambda value: (isinstance(value, str), value)), None]
        places = {value: number for number, value in enumerate(values)}
        by_number = np.array([places[value] for value in [*found, None]], np.int64)
        # −1, who is unknown, takes the last place.
        return values, by_number[np.frombuffer(self._seen[key], np.int64)]


def field_rows(
    fields: QueryFields, evaluations: Sequence[Evaluation], replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Figures, with intervals by patient, of the queries of each value of each field.

    The queries of ``evaluations`` are those that ``fields`` were given, in that order.
    """
    rows = []
    for name in fields.names:
        values, places = fields.values(name)
        for number, value in enumerate(values):
            mine = np.flatnonzero(places == number)
            if not len(mine):
                continue
            for one in evaluations:
                outcomes = one.outcomes.select(mine)
                figures = Evaluation(one.method, outcomes, one.known_classes).figures()
                intervals = bootstrap_intervals(outcomes, replicates, seed)
                rows.append(
                    {
                        "field": name,
                        "value": value,
                        "method": one.method,
                        "n": len(mine),
                        "patients": n_patients(outcomes),
                        **{figure: figures[figure] for figure in FIGURES},
                        "intervals": {
                            figure: list(intervals[figure])
                            for figure in FIGURES
                            if figure in intervals
                        },
                    }
                )
    return rows
