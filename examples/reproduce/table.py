#!/usr/bin/env python3
"""Put the figures of runs into a table: mean ± standard deviation over seeds, Markdown and CSV.

With --all every evaluation of a run gets a row of its own, named after its file. Standard library
only.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from runs import Run, bit_entropy, from_file, read_runs, share_of_needed

# Methods in the order of the table; others follow by name.
_ORDER = (
    *("frozen", "knn", "nca", "lmnn", "cross-entropy", "triplet", "triplet-hard"),
    *("triplet-star", "triplet-hard-star"),
    *("peer-cross-entropy", "peer-cross-entropy-balanced"),
    *("peer-easy-positive", "peer-easy-positive-shuffled"),
    *("peer-semi-hard", "peer-hard", "peer-none"),
    *("multitask", "deep-knn", "deep-knn-star", "deep-knn-ce", "deep-knn-ce-star"),
    *("triplet-ce", "triplet-ce-star", "two-tasks"),
    *(
        "cross-entropy-8",
        "triplet-8",
        "multitask-8",
        "deep-knn-8",
        "deep-knn-star-8",
        "deep-knn-ce-8",
        "deep-knn-ce-star-8",
        "triplet-ce-8",
        "two-tasks-8",
        "peer-easy-positive-8",
    ),
)
NAMES = {
    "frozen": "frozen + ITQ",
    "knn": "frozen, kNN",
    "nca": "frozen, NCA",
    "lmnn": "frozen, LMNN",
    "triplet": "triplet, semi-hard",
    "triplet-hard": "triplet, batch-hard",
    "triplet-star": "triplet*, semi-hard",
    "triplet-hard-star": "triplet*, batch-hard",
    "peer-cross-entropy": "peer: cross-entropy",
    "peer-cross-entropy-balanced": "peer: cross-entropy, balanced batches",
    "peer-easy-positive": "peer: cross-entropy + triplet, easy positive",
    "peer-easy-positive-shuffled": (
        "peer: cross-entropy + triplet, easy positive, shuffled batches"
    ),
    "peer-semi-hard": "peer: cross-entropy + triplet, semi-hard",
    "peer-hard": "peer: cross-entropy + triplet, hard",
    "peer-none": "peer: cross-entropy + all triplets",
    "deep-knn": "deep kNN",
    "deep-knn-star": "deep kNN*",
    "deep-knn-ce": "deep kNN + cross-entropy",
    "deep-knn-ce-star": "deep kNN* + cross-entropy",
    "triplet-ce": "triplet + cross-entropy, easy positive",
    "triplet-ce-star": "triplet* + cross-entropy, easy positive",
    "two-tasks": "multitask, two tasks",
    "two-tasks-8": "multitask, two tasks, 8 orientations",
    "triplet-8": "triplet, semi-hard, 8 orientations",
    "cross-entropy-8": "cross-entropy, 8 orientations",
    "multitask-8": "multitask, 8 orientations",
    "deep-knn-8": "deep kNN, 8 orientations",
    "deep-knn-star-8": "deep kNN*, 8 orientations",
    "deep-knn-ce-8": "deep kNN + cross-entropy, 8 orientations",
    "deep-knn-ce-star-8": "deep kNN* + cross-entropy, 8 orientations",
    "triplet-ce-8": "triplet + cross-entropy, easy positive, 8 orientations",
    "peer-easy-positive-8": "peer: cross-entropy + triplet, easy positive, 8 orientations",
}


class Column(NamedTuple):
    """One figure: its name, how it is read from a run, how it is printed."""

    title: str
    value: Callable[[Run], float | None]
    style: str = "percent"


def _mean_ball_share(run: Run) -> float | None:
    found = run.evaluations.get("radius1", {})
    rows, ball = found.get("settings", {}).get("rows"), found.get("mean_ball")
    return ball / rows if rows and ball is not None else None


COLUMNS = (
    Column("Acc", from_file("radius1", "accuracy")),
    Column("MCR", from_file("radius1", "mean_class_recall")),
    Column("RS", from_file("radius1", "recall_smallest_class")),
    Column("classifier Acc", from_file("radius1", "classifier_accuracy")),
    Column("P@10, L2", from_file("radius1", "l2_precision_at_k")),
    Column("P@10, r = 1", lambda run: run.evaluations.get("radius1", {}).get("precision_at_k")),
    Column("P@10, r = 2", lambda run: run.evaluations.get("radius2", {}).get("precision_at_k")),
    Column("ten true", from_file("radius1", "all_k_true")),
    Column(
        "ten true, l2 coarse", lambda run: run.evaluations.get("coarse-l2", {}).get("all_k_true")
    ),
    Column("empty balls", from_file("radius1", "empty_balls")),
    Column("widened", from_file("radius1", "widened")),
    Column("mean ball", _mean_ball_share),
    Column("bit entropy", bit_entropy, "number"),
    Column("of needed", share_of_needed, "number"),
    Column("AUROC", from_file("radius1", "confidence_auroc"), "number"),
    Column("AURC", from_file("radius1", "aurc"), "small"),
    Column("ECE", from_file("radius1", "ece"), "small"),
    Column("AURC by distance", from_file("radius1", "weighted_aurc"), "small"),
    Column("ECE by distance", from_file("radius1", "weighted_ece"), "small"),
    Column("MCR, ten patients", from_file("patients", "mean_class_recall")),
    Column("AURC, ten patients", from_file("patients", "aurc"), "small"),
    Column("AURC by distance, ten patients", from_file("patients", "weighted_aurc"), "small"),
    Column("classifier AURC", from_file("radius1", "classifier_aurc"), "small"),
    Column("s/epoch", lambda run: run.epoch_seconds, "seconds"),
)
_KEYS = {
    "Acc": "accuracy",
    "MCR": "mean_class_recall",
    "RS": "recall_smallest_class",
    "classifier Acc": "classifier_accuracy",
    "P@k": "precision_at_k",
    "P@k, L2": "l2_precision_at_k",
    "k true": "all_k_true",
}


def _by_evaluation(runs: list[Run]) -> list[Run]:
    """A run for each evaluation, named METHOD, FILE."""
    return [
        run._replace(method=f"{run.method}, {name}", evaluations={"one": figures})
        for run in runs
        for name, figures in run.evaluations.items()
    ]


def _rows(runs: list[Run], columns: Iterable[Column]) -> list[dict[str, Any]]:
    """One row per data set and method: of each column its values, one a seed."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.data, run.method].append(run)

    def place(key: tuple[str, str]) -> tuple[Any, ...]:
        first = key[1].split(",")[0]
        return key[0], _ORDER.index(first) if first in _ORDER else len(_ORDER), key[1]

    return [
        {
            "data": data,
            "method": method,
            "seeds": len(groups[data, method]),
            **{
                column.title: [
                    v for run in groups[data, method] if (v := column.value(run)) is not None
                ]
                for column in columns
            },
        }
        for data, method in sorted(groups, key=place)
    ]


def _shown(values: list[float], style: str) -> str:
    """``91.2 ± 0.4``; of one value no deviation, of none a dash."""
    if not values:
        return "–"
    factor, digits = {"percent": (100, 1), "number": (1, 2), "small": (1, 3), "seconds": (1, 1)}[
        style
    ]
    mean = statistics.fmean(values) * factor
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values) * factor:.{digits}f}"


def markdown(rows: list[dict[str, Any]], columns: tuple[Column, ...]) -> str:
    """A table per data set."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        titles = ["method", *(column.title for column in columns)]
        lines += [f"### {data}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for row in rows:
            if row["data"] == data:
                cells = [_shown(row[column.title], column.style) for column in columns]
                name = NAMES.get(row["method"], row["method"])
                lines.append(f"| {' | '.join([name, *cells])} |")
        lines.append("")
    return "\n".join(lines)


def as_csv(rows: list[dict[str, Any]], columns: tuple[Column, ...]) -> str:
    """Means and deviations in full, two columns a figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [f"{column.title}{end}" for column in columns for end in ("", " sd")]
    writer.writerow(["data", "method", "seeds", *titles])
    for row in rows:
        cells: list[Any] = [row["data"], row["method"], row["seeds"]]
        for column in columns:
            values = row[column.title]
            cells.append(statistics.fmean(values) if values else "")
            cells.append(statistics.stdev(values) if len(values) > 1 else "")
        writer.writerow(cells)
    return text.getvalue()


def main() -> None:
    """Print the table as Markdown, and write both forms where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, help="Folder for table.md and table.csv.")
    parser.add_argument("--all", action="store_true", help="A row per evaluation.")
    options = parser.parse_args()
    runs = read_runs(options.runs)
    if not runs:
        sys.exit(f"{options.runs} holds no results (DATA/METHOD/seedN/*.ndjson).")
    columns = COLUMNS
    if options.all:
        runs = _by_evaluation(runs)
        columns = tuple(Column(title, from_file("one", key)) for title, key in _KEYS.items())
    rows = _rows(runs, columns)
    text = markdown(rows, columns)
    if options.output is None:
        print(text)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "table.md").write_text(text)
    (options.output / "table.csv").write_text(as_csv(rows, columns))


if __name__ == "__main__":
    main()
