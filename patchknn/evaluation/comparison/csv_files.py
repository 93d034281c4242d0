"""A CSV file behind every table and figure, so that anyone may draw it anew."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from patchknn.errors import UsageError
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.confidence import confidence_tables
from patchknn.evaluation.sections import Section
from patchknn.files import replaced_atomically


class Table(NamedTuple):
    """Columns by name, and rows of as many cells."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]


def check_folder(folder: Path) -> None:
    """Raise UsageError where the tables could not be written to ``folder`` in the end."""
    if folder.exists() and not folder.is_dir():
        message = f"--csv {folder} is a file: give a folder."
        raise UsageError(message)


def write_csv(folder: Path, tables: Mapping[str, Table]) -> None:
    """Write each table to ``folder/<name>.csv``, whole or not at all; the folder may be new.

    UTF-8, a header line, None as an empty cell, fractions exactly as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with (
            replaced_atomically(folder / f"{name}.csv") as temporary,
            # Names of files that are no UTF-8 are spelled out, as JSON would.
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(table.rows)


def figure_tables(evaluations: Sequence[Evaluation]) -> dict[str, Table]:
    """The tables behind what ``evaluate`` reports, by the names of their files."""
    per_class = [{"method": e.method} | row for e in evaluations for row in e.class_rows()]
    held: dict[str, list[dict[str, Any]]] = {}
    for one in evaluations:
        for name, rows in confidence_tables(one.outcomes).items():
            held.setdefault(name, []).extend({"method": one.method} | row for row in rows)
    return {
        "figures": Table(("method", "figure", "value", "low", "high"), _figures(evaluations)),
        "paired": Table(
            ("method", "against", "figure", "difference", "low", "high", "p", "patients", "n"),
            _paired(evaluations),
        ),
        "per_class": _of_dicts(per_class),
        "confusion": Table(("method", "true", "predicted", "n"), _confusion(evaluations)),
        "neighbour_histogram": Table(
            ("method", "true_neighbours", "n", "share"), _histogram(evaluations)
        ),
        "confidence_batches": _of_dicts(held["batches"]),
        "confidence_bins": _of_dicts(held["reliability"]),
        "risk_coverage": _of_dicts(held["risk_coverage"]),
    }


def section_tables(sections: Sequence[Section]) -> dict[str, Table]:
    """The tables of sections by their keys; the ends of intervals have columns of their own."""
    tables: dict[str, Table] = {}
    for section in sections:
        rows = section.rows
        named = [c for c in section.columns if any(c in row.get("intervals", {}) for row in rows)]
        columns = [*section.columns, *(f"{c}_{end}" for c in named for end in ("low", "high"))]
        cells = [
            [row.get(name) for name in section.columns]
            + [end for name in named for end in row.get("intervals", {}).get(name, (None, None))]
            for row in rows
        ]
        tables[section.key] = Table(columns, cells)
    return tables


def _of_dicts(rows: Sequence[dict[str, Any]]) -> Table:
    return Table(tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows])


def _figures(evaluations: Sequence[Evaluation]) -> Iterator[Sequence[Any]]:
    for one in evaluations:
        for name, value in one.figures().items():
            shown = " ".join(value) if isinstance(value, list) else value
            yield one.method, name, shown, *one.intervals.get(name, (None, None))


def _paired(evaluations: Sequence[Evaluation]) -> Iterator[Sequence[Any]]:
    for one in evaluations:
        if one.paired is not None:
            found = one.paired
            for name in ("accuracy", "precision_at_k"):
                entry = getattr(found, name)
                ends = entry.interval or (None, None)
                yield (
                    *(one.method, found.against, name, entry.difference, *ends, entry.p),
                    *(found.patients, found.n),
                )


def _confusion(evaluations: Sequence[Evaluation]) -> Iterator[Sequence[Any]]:
    for one in evaluations:
        table = one.confusion()
        for true, counts in zip(table.true, table.counts.tolist(), strict=True):
            for predicted, count in zip(table.predicted, counts, strict=True):
                yield one.method, true, predicted, count


def _histogram(evaluations: Sequence[Evaluation]) -> Iterator[Sequence[Any]]:
    for one in evaluations:
        for hits, count in enumerate(one.neighbour_histogram()):
            yield one.method, hits, count, count / len(one.outcomes)
