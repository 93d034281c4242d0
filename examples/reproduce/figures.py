#!/usr/bin/env python3
"""Draw figures of runs: convergence, true neighbours, accuracy against confidence."""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

_BATCH = 50  # as paper A, Fig. 3
_Answers = list[dict[str, Any]]


def convergence(options: argparse.Namespace) -> None:
    """Accuracy (kNN) and P@10 of the validation images by epoch; paper B, Fig. 2.

    RUNS are NAME=training.csv; those of one name are seeds: their mean, and a band from the least
    to the most.
    """
    logs: dict[str, list[dict[int, dict[str, float]]]] = defaultdict(list)
    for name, path in map(_named, options.inputs):
        with path.open(newline="") as file:
            logs[name].append(
                {
                    int(row["epoch"]): {k: float(v) for k, v in row.items() if v}
                    for row in csv.DictReader(file)
                }
            )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, (key, title) in zip(
        axes, (("accuracy", "accuracy, kNN"), ("p_at_10", "P@10")), strict=True
    ):
        for name, runs in logs.items():
            epochs = sorted(e for e in runs[0] if all(key in run.get(e, {}) for run in runs))
            if not epochs:
                raise SystemExit(f"{name}: training.csv has no {key}; train with --validation.")
            values = np.array([[run[epoch][key] for epoch in epochs] for run in runs])
            (line,) = axis.plot(epochs, values.mean(0), marker="o", label=name)
            axis.fill_between(
                epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.2
            )
        axis.set(xlabel="epoch", ylabel=f"validation {title}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(options.output, dpi=150)


def neighbours(options: argparse.Namespace) -> None:
    """How many queries have 0 to k true neighbours; paper A, Fig. 2.

    ANSWERS are NAME=FILE, the NDJSON of `patchknn query` on labelled images.
    """
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    width = 0.8 / len(options.inputs)
    for place, (name, path) in enumerate(map(_named, options.inputs)):
        answers = _answers(path)
        true = [sum(n["label"] == a["label"] for n in a["neighbours"]) for a in answers]
        counts = np.bincount(true, minlength=options.k + 1)
        at = np.arange(len(counts)) + (place - (len(options.inputs) - 1) / 2) * width
        bars = axis.bar(at, counts, width, label=f"{name}: {counts[-1]} of {len(answers)} all true")
        axis.bar_label(bars, fontsize=6)
    axis.set(xlabel="true neighbours", ylabel="queries", xticks=range(options.k + 1))
    axis.legend()
    figure.savefig(options.output, dpi=150)


def confidence(options: argparse.Namespace) -> None:
    """Accuracy of queries by their confidence; paper A, Fig. 3.

    Inputs are NAME=FILE: answers of `patchknn query`, whose spread is that of batches of 50, or a
    report of `patchknn evaluate`.
    """
    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    for name, path in map(_named, options.inputs):
        first = json.loads(path.read_text().splitlines()[0])
        if "confidence_bins" in first:
            bins = [row for row in first["confidence_bins"] if row["n"]]
            points = [(row["confidence"], row["accuracy"], 0.0) for row in bins]
        else:
            points = _by_batches(_answers(path), options.seed)
        x, y, spread = zip(*points, strict=True)
        axis.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=name)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.legend()
    figure.savefig(options.output, dpi=150)


def _by_batches(answers: _Answers, seed: int) -> list[tuple[float, float, float]]:
    """Per confidence its accuracy, and the deviation of that between batches of queries."""
    order = np.random.default_rng(seed).permutation(len(answers))
    levels = defaultdict(list)
    for start in range(0, len(order), _BATCH):
        batch = defaultdict(list)
        for number in order[start : start + _BATCH]:
            answer = answers[number]
            level = round(answer["confidence"] or 0.0, 1)
            batch[level].append(answer["prediction"] == answer["label"])
        for level, right in batch.items():
            levels[level].append((sum(right), len(right)))
    points = []
    for level, found in sorted(levels.items()):
        right, n = np.array(found).T
        points.append((level, float(right.sum() / n.sum()), float(np.std(right / n))))
    return points


def _answers(path: Path) -> _Answers:
    entries = [json.loads(line) for line in path.read_text().splitlines() if line]
    answers = [
        entry for entry in entries if entry.get("label") is not None and "neighbours" in entry
    ]
    if not answers:
        raise SystemExit(f"{path} holds no answers to labelled queries.")
    return answers


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def main() -> None:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    draw: Callable[[argparse.Namespace], None]
    for draw in (convergence, neighbours, confidence):
        command = commands.add_parser(draw.__name__, description=draw.__doc__)
        command.add_argument("inputs", nargs="+", metavar="NAME=FILE")
        command.add_argument("-o", "--output", type=Path, required=True)
        command.add_argument("--k", type=int, default=10)
        command.add_argument("--seed", type=int, default=0)
        command.set_defaults(draw=draw)
    options = parser.parse_args()
    options.draw(options)


if __name__ == "__main__":
    main()
