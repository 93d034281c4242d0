"""Figures by what is known of the queries: a field of attached records, or of their manifest."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.records import KEYS, Field, open_records
from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.manifests import ManifestRow, read_manifest
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.intervals import bootstrap_intervals, n_patients
from patchknn.search.query import Query
from patchknn.tables import TABLE_SUFFIXES, read_table

FIGURES = ("accuracy", "mean_class_recall", "precision_at_k", "confidence_auroc")
COLUMNS = ("field", "value", "method", "n", "patients", *FIGURES)
_UNKNOWN = -1

# Cells by column, and by the patch or source that a row is of.
Columns = Mapping[str, Mapping[str, str | None]]


class QueryFields:
    """Takes queries as they are answered; knows then which value of each field they have.

    ``names`` are ``slide`` or ``patient`` itself, columns of the queries' manifest (``columns``,
    as ``manifest_columns`` reads them), or else fields of the snapshot's records, in small or
    capital letters. The records are those of the query's slide or patient, which need not be
    archived. Raises UsageError where there is no such field, DamageError where a table is not as
    it was attached.
    """

    def __init__(
        self, snapshot: Snapshot, names: Sequence[str], columns: Columns | None = None
    ) -> None:
        self._records = open_records(snapshot.path, snapshot.manifest.records)
        self._columns = columns or {}
        self._fields: dict[str, Field | None] = {}
        for name in names:
            itself = name in KEYS or name in self._columns
            field = None if itself else self._records.field(name, "--by")
            self._fields[name if field is None else field.name] = field
        keys = dict.fromkeys([*KEYS, *self._columns])
        self._numbers: dict[str, dict[str, int]] = {key: {} for key in keys}
        self._seen = {key: array("q") for key in keys}

    @property
    def names(self) -> tuple[str, ...]:
        """The fields as the tables spell them."""
        return tuple(self._fields)

    def add(self, query: Query) -> None:
        """Take the next query."""
        own = {
            name: cells.get(query.patch_id or "", cells.get(query.source or ""))
            for name, cells in self._columns.items()
        }
        for key, value in {**own, "slide": query.source, "patient": query.patient}.items():
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


def manifest_columns(data: Sequence[str], names: Sequence[str]) -> Columns:
    """Those of ``names`` that are columns of a manifest in ``data``.

    Raises InputError where a manifest cannot be read.
    """
    columns: dict[str, dict[str, str | None]] = {}
    for path in map(Path, data):
        if path.suffix.lower() not in TABLE_SUFFIXES:
            continue
        table = read_table(path, required=["path"])
        wanted = [name for name in names if name in table.columns and name not in KEYS]
        if not wanted:
            continue
        for cells, row in zip(table.rows, read_manifest(path), strict=True):
            if isinstance(row, ManifestRow):
                identity = row.as_patch().id  # of a slide as a whole its name
                for name in wanted:
                    columns.setdefault(name, {})[identity] = cells[name]
    return columns


def field_rows(
    fields: QueryFields, evaluations: Sequence[Evaluation], replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Figures, with intervals by patient, of the queries of each value of each field.

    The queries of the first of ``evaluations`` are those that ``fields`` were given, in that order;
    of the others those count that have the names of these.
    """
    numbers = {query: number for number, query in enumerate(evaluations[0].outcomes.queries)}
    asked = [
        np.array([numbers.get(query, -1) for query in one.outcomes.queries], np.int64)
        for one in evaluations[1:]
    ]
    rows = []
    for name in fields.names:
        values, places = fields.values(name)
        for number, value in enumerate(values):
            of_first = places == number
            if not of_first.any():
                continue
            of_others = [(theirs >= 0) & of_first[theirs] for theirs in asked]
            for one, mine in zip(evaluations, [of_first, *of_others], strict=True):
                outcomes = one.outcomes.select(mine)
                if not len(outcomes):
                    continue
                figures = Evaluation(one.method, outcomes, one.known_classes).figures()
                intervals = bootstrap_intervals(outcomes, replicates, seed)
                rows.append(
                    {
                        "field": name,
                        "value": value,
                        "method": one.method,
                        "n": len(outcomes),
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
