#!/usr/bin/env python3
"""Put the figures of runs into a table: mean ± standard deviation over seeds, Markdown and CSV.

A run is a folder DATA/METHOD/seedN as the scripts here leave it: encoder/encoder.json,
encoder/training.csv, and the NDJSON of `patchknn evaluate`. With --all every evaluation of a run
gets a row of its own, named after its file. Standard library only.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

# Of more classes than this, bipartitions are drawn by chance instead of listed.
_MOST_CLASSES = 12
_DRAWN = 4000
# Methods in the order of the table; others follow by name.
_ORDER = (
    *("frozen", "knn", "nca", "lmnn", "cross-entropy", "triplet", "triplet-hard"),
    *("triplet-star", "triplet-hard-star"),
    *("peer-cross-entropy", "peer-easy-positive", "peer-semi-hard", "peer-hard", "peer-none"),
    *("multitask", "deep-knn", "deep-knn-star"),
    "two-tasks",
    *(
        "cross-entropy-8",
        "triplet-8",
        "multitask-8",
        "deep-knn-8",
        "deep-knn-star-8",
        "two-tasks-8",
    ),
)
_NAMES = {
    "frozen": "frozen + ITQ",
    "knn": "frozen, kNN",
    "nca": "frozen, NCA",
    "lmnn": "frozen, LMNN",
    "triplet": "triplet, semi-hard",
    "triplet-hard": "triplet, batch-hard",
    "triplet-star": "triplet*, semi-hard",
    "triplet-hard-star": "triplet*, batch-hard",
    "peer-cross-entropy": "peer: cross-entropy",
    "peer-easy-positive": "peer: cross-entropy + triplet, easy positive",
    "peer-semi-hard": "peer: cross-entropy + triplet, semi-hard",
    "peer-hard": "peer: cross-entropy + triplet, hard",
    "peer-none": "peer: cross-entropy + all triplets",
    "deep-knn": "deep kNN",
    "deep-knn-star": "deep kNN*",
    "two-tasks": "multitask, two tasks",
    "two-tasks-8": "multitask, two tasks, 8 orientations",
    "triplet-8": "triplet, semi-hard, 8 orientations",
    "cross-entropy-8": "cross-entropy, 8 orientations",
    "multitask-8": "multitask, 8 orientations",
    "deep-knn-8": "deep kNN, 8 orientations",
    "deep-knn-star-8": "deep kNN*, 8 orientations",
}
Figures = dict[str, float | None]
Evaluations = dict[str, dict[str, Any]]


class Run(NamedTuple):
    """What one run left; ``evaluations`` by the name of their file."""

    data: str
    method: str
    seed: str
    evaluations: Evaluations
    encoder: dict[str, Any]
    epoch_seconds: float | None


class Column(NamedTuple):
    """One figure: its name, how it is read from a run, how it is printed."""

    title: str
    value: Callable[[Run], float | None]
    style: str = "percent"


def from_file(name: str, key: str) -> Callable[[Run], float | None]:
    """The figure ``key`` of the evaluation ``name``, else of the peer's ``knn``."""
    return lambda run: (run.evaluations.get(name) or run.evaluations.get("knn") or {}).get(key)


def _mean_ball_share(run: Run) -> float | None:
    found = run.evaluations.get("radius1", {})
    rows, ball = found.get("settings", {}).get("rows"), found.get("mean_ball")
    return ball / rows if rows and ball is not None else None


def _bit_entropy(run: Run) -> float | None:
    return run.encoder.get("metrics", {}).get("bit_entropy")


def _share_of_needed(run: Run) -> float | None:
    counts = run.encoder.get("training", {}).get("class_counts") or {}
    if any(isinstance(count, dict) for count in counts.values()):
        return None  # of several tasks, whose bits tell more than one set of classes apart
    entropy, needed = _bit_entropy(run), needed_entropy(list(counts.values()))
    return entropy / needed if entropy is not None and needed else None


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
    Column("bit entropy", _bit_entropy, "number"),
    Column("of needed", _share_of_needed, "number"),
    Column("AUROC", from_file("radius1", "confidence_auroc"), "number"),
    Column("AURC", from_file("radius1", "aurc"), "small"),
    Column("ECE", from_file("radius1", "ece"), "small"),
    Column("AURC by distance", from_file("radius1", "weighted_aurc"), "small"),
    Column("ECE by distance", from_file("radius1", "weighted_ece"), "small"),
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


def needed_entropy(counts: list[int]) -> float | None:
    """What a bit that tells classes apart carries: bits, from training images per class.

    Such a bit is 1 for some classes and 0 for the others; this is the mean of its entropy over all
    ways to part the classes in two, neither side empty. With two classes there is one way, and an
    imbalanced pair needs less than 1 bit.
    """
    total = sum(counts)
    if len(counts) < 2 or not total:
        return None
    if len(counts) <= _MOST_CLASSES:  # the first class stays on side 0: each way counts once
        ways: Iterable[tuple[int, ...]] = (
            (0, *rest) for rest in product((0, 1), repeat=len(counts) - 1)
        )
    else:
        generator = random.Random(0)
        ways = (tuple(generator.choices((0, 1), k=len(counts))) for _ in range(_DRAWN))
    shares = [
        sum(count for count, side in zip(counts, way, strict=True) if side) / total
        for way in ways
        if 0 < sum(way) < len(counts)
    ]
    return statistics.fmean(map(_entropy, shares))


def _entropy(share: float) -> float:
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def read_runs(folder: Path) -> list[Run]:
    """All runs below a folder, those without a figure left out."""
    runs = []
    for place in sorted(folder.glob("**/seed*")):
        if not place.is_dir() or not place.name.removeprefix("seed").isdigit():
            continue
        evaluations = {}
        for file in sorted(place.glob("*.ndjson")):
            objects = [json.loads(line) for line in file.read_text().splitlines() if line]
            figures = next((entry for entry in objects if "accuracy" in entry), None)
            if figures is None and file.stem == "network":
                figures = _of_network(objects)
            if figures is not None:
                evaluations[file.stem] = figures
        if not evaluations:
            continue
        description = place / "encoder" / "encoder.json"
        encoder = json.loads(description.read_text()) if description.is_file() else {}
        data = place.parent.parent.relative_to(folder).as_posix()
        seconds = _epoch_seconds(place)
        runs.append(Run(data, place.parent.name, place.name, evaluations, encoder, seconds))
    return runs


def _of_network(answers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The same figures of the network's own classes, from answers of `patchknn query`."""
    right: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        if answer.get("classifier") and answer.get("label") is not None:
            right[answer["label"]].append(answer["classifier"]["prediction"] == answer["label"])
    if not right:
        return None
    recalls = [(len(own), statistics.fmean(own)) for own in right.values()]
    return {
        "accuracy": sum(map(sum, right.values())) / sum(map(len, right.values())),
        "mean_class_recall": statistics.fmean(recall for _, recall in recalls),
        "recall_smallest_class": min(recalls)[1],
    }


def _epoch_seconds(run: Path) -> float | None:
    """The median time of an epoch's training, of patchknn or of the peer."""
    for log in (run / "peer.csv", run / "encoder" / "training.csv"):
        if log.is_file():
            with log.open(newline="") as file:
                times = [
                    float(r["train_seconds"])
                    for r in csv.DictReader(file)
                    if r.get("train_seconds")
                ]
            if times:
                return statistics.median(times)
    return None


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
                name = _NAMES.get(row["method"], row["method"])
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


def remarks(rows: list[dict[str, Any]]) -> str:
    """How many fewer queries with a wrong neighbour multitask leaves than cross-entropy."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        ours, theirs = (
            next((r for r in rows if (r["data"], r["method"]) == (data, method)), {})
            for method in ("multitask", "cross-entropy")
        )
        mine = ours.get("ten true")
        for title, how in (
            ("ten true", "two-stage, r = 1"),
            ("ten true, l2 coarse", "L2 on hash vectors"),
        ):
            if mine and theirs.get(title):
                wrong, before = 1 - statistics.fmean(mine), 1 - statistics.fmean(theirs[title])
                change = "" if not before else f": {1 - wrong / before:+.0%} fewer"
                lines.append(
                    f"{data}: imperfect queries of multitask {wrong:.1%}, of cross-entropy ({how}) "
                    f"{before:.1%}{change}."
                )
    return "\n".join(lines)


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
    if not options.all and (said := remarks(rows)):
        text += f"\n{said}\n"
    if options.output is None:
        print(text)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "table.md").write_text(text)
    (options.output / "table.csv").write_text(as_csv(rows, columns))


if __name__ == "__main__":
    main()
