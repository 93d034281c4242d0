"""What runs left: a folder DATA/METHOD/seedN each, as the scripts here write it.

encoder/encoder.json, encoder/training.csv, and the NDJSON of `patchknn evaluate`. Standard library
only.
"""

from __future__ import annotations

import csv
import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

# Of more classes than this, bipartitions are drawn by chance instead of listed.
_MOST_CLASSES = 12
_DRAWN = 4000
Evaluations = dict[str, dict[str, Any]]


class Run(NamedTuple):
    """What one run left; ``evaluations`` by the name of their file.

    ``idle``: the loss was 0 in every epoch, so that the run trained nothing.
    """

    data: str
    method: str
    seed: str
    evaluations: Evaluations
    encoder: dict[str, Any]
    epoch_seconds: float | None
    idle: bool = False


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
        epochs = _epochs(place)
        seconds = [float(row["train_seconds"]) for row in epochs]
        runs.append(
            Run(
                data,
                place.parent.name,
                place.name,
                evaluations,
                encoder,
                epoch_seconds=statistics.median(seconds) if seconds else None,
                idle=bool(epochs) and all(float(row["loss"]) == 0 for row in epochs),
            )
        )
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


def _epochs(run: Path) -> list[dict[str, str]]:
    """The epochs that trained the whole network, in the log of patchknn or of the peer."""
    for log in (run / "peer.csv", run / "encoder" / "training.csv"):
        if log.is_file():
            with log.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row.get("train_seconds")]
            if rows:
                return rows
    return []


def from_file(name: str, key: str) -> Callable[[Run], float | None]:
    """The figure ``key`` of the evaluation ``name``, else of the peer's ``knn``."""
    return lambda run: (run.evaluations.get(name) or run.evaluations.get("knn") or {}).get(key)


def bit_entropy(run: Run) -> float | None:
    """The mean over the bits, of training images; None without an encoder."""
    return run.encoder.get("metrics", {}).get("bit_entropy")


def share_of_needed(run: Run) -> float | None:
    """Its ratio to what a bit that tells the classes apart carries."""
    counts = run.encoder.get("training", {}).get("class_counts") or {}
    if any(isinstance(count, dict) for count in counts.values()):
        return None  # of several tasks, whose bits tell more than one set of classes apart
    entropy, needed = bit_entropy(run), needed_entropy(list(counts.values()))
    return entropy / needed if entropy is not None and needed else None


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
