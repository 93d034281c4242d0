#!/usr/bin/env python3
"""Say which claims of the papers, and which aims, the runs bear out: one line each, Markdown.

Two methods are compared seed by seed. A difference is *beyond chance* where a paired t test over
the seeds says so (one-sided, 5 %), which one seed never does. A claim whose runs are not there is
left out, and a run whose loss was 0 from first to last bears out nothing: it is named, not counted.
Standard library only.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from runs import Run, from_file, read_runs, share_of_needed
from table import NAMES

Value = Callable[[Run], float | None]
# What is aimed at on a data set: name, figure, least or most, and whether more is better.
_AIMS: dict[str, list[tuple[str, Value, float, bool]]] = {
    "colon_cells": [
        ("P@10, r = 1", from_file("radius1", "precision_at_k"), 0.78, True),
        ("all ten true", from_file("radius1", "all_k_true"), 0.55, True),
        ("MCR", from_file("radius1", "mean_class_recall"), 0.75, True),
        ("AURC", from_file("radius1", "aurc"), 0.085, False),
        ("AURC by distance", from_file("radius1", "weighted_aurc"), 0.085, False),
        ("AURC, ten patients", from_file("patients", "aurc"), 0.085, False),
    ]
}
_PRECISION = from_file("radius1", "precision_at_k")
_ACCURACY = from_file("radius1", "accuracy")
_RECALL = from_file("radius1", "mean_class_recall")
_SMALLEST = from_file("radius1", "recall_smallest_class")
_ALL_TRUE = from_file("radius1", "all_k_true")
# One-sided 5 % points of Student's t by degrees of freedom; beyond the last it hardly changes.
_CRITICAL = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)


class Claim(NamedTuple):
    """What is claimed, what was seen, and whether that bears it out."""

    text: str
    seen: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.text}: {self.seen}: {'holds' if self.holds else '**does not hold**'}."


class Difference(NamedTuple):
    """Paired differences over seeds."""

    values: list[float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def beyond_chance(self) -> bool:
        """Whether it is above 0 by a paired t test."""
        freedom = len(self.values) - 1
        if freedom < 1 or self.mean <= 0:
            return False
        error = statistics.stdev(self.values) / math.sqrt(len(self.values))
        return self.mean > _CRITICAL[min(freedom, len(_CRITICAL)) - 1] * error

    def __str__(self) -> str:
        points = [f"{100 * value:+.1f}" for value in self.values]
        if len(points) == 1:
            return f"{points[0]} points, one seed"
        spread = 100 * statistics.stdev(self.values)
        return f"{100 * self.mean:+.1f} ± {spread:.1f} points ({len(points)} seeds)"


Methods = dict[str, dict[str, Run]]


def claims(runs: list[Run]) -> Iterator[tuple[str, Claim]]:
    """Every claim that the runs can answer, with its data set."""
    for data in dict.fromkeys(run.data for run in runs):
        methods: Methods = {}
        for run in runs:
            if run.data == data and not run.idle:
                methods.setdefault(run.method, {})[run.seed] = run
        for part in (_aims, _of_multitask, _of_deep_knn_star, _against_peers):
            yield from ((data, claim) for claim in part(data, methods))


def not_counted(runs: list[Run]) -> Iterator[tuple[str, str]]:
    """A sentence for every method that has runs which trained nothing, with its data set."""
    idle: dict[tuple[str, str], int] = {}
    for run in runs:
        if run.idle:
            idle[run.data, run.method] = idle.get((run.data, run.method), 0) + 1
    for (data, method), count in idle.items():
        number = "1 run is" if count == 1 else f"{count} runs are"
        yield data, f"{_name(method)}: {number} not counted: the loss is 0 in every epoch."


def difference(methods: Methods, ours: str, theirs: str, value: Value) -> Difference | None:
    """Ours less theirs, seed by seed; None where no seed has both."""
    found = []
    for seed, run in methods.get(ours, {}).items():
        other = methods.get(theirs, {}).get(seed)
        mine, its = value(run), None if other is None else value(other)
        if mine is not None and its is not None:
            found.append(mine - its)
    return Difference(found) if found else None


def _aims(data: str, methods: Methods) -> Iterator[Claim]:
    best = _best(methods, _PRECISION, peers=False)
    if best is None:
        return
    for name, value, bound, more in _AIMS.get(data, []):
        mean = _mean(methods[best], value)
        if mean is not None:
            sign, met = ("≥", mean >= bound) if more else ("≤", mean <= bound)
            yield Claim(f"aim {name} {sign} {bound}", f"{_name(best)} {mean:.3f}", met)


def _of_multitask(_: str, methods: Methods) -> Iterator[Claim]:
    own = methods.get("multitask", {})
    for radius in (1, 2):
        two_stage = _mean(own, from_file(f"radius{radius}", "precision_at_k"))
        exhaustive = _mean(own, from_file("radius1", "l2_precision_at_k"))
        if two_stage is not None and exhaustive is not None:
            text = f"multitask: P@10 of two stages, r = {radius}, not 0.01 below that of L2"
            seen = f"{two_stage:.3f} against {exhaustive:.3f}"
            yield Claim(text, seen, two_stage >= exhaustive - 0.01)
    share = _mean(own, share_of_needed)
    if share is not None:
        yield Claim("multitask: bit entropy above 0.8 of needed", f"{share:.2f}", share > 0.8)
    coarse = from_file("coarse-l2", "all_k_true")
    for value, how in ((_ALL_TRUE, "two stages, r = 1"), (coarse, "L2 on hash vectors")):
        mine, its = _mean(own, _ALL_TRUE), _mean(methods.get("cross-entropy", {}), value)
        if mine is not None and its is not None and its < 1:
            fewer = 1 - (1 - mine) / (1 - its)
            seen = f"{1 - mine:.1%} against {1 - its:.1%} ({how}), {fewer:+.0%}"
            text = "multitask: 20 % fewer queries with a wrong neighbour than cross-entropy"
            yield Claim(text, seen, fewer >= 0.2)
    accuracy = difference(methods, "multitask", "cross-entropy", _ACCURACY)
    if accuracy is not None:
        text = "multitask: accuracy not below cross-entropy's"
        yield Claim(text, str(accuracy), accuracy.mean >= 0)


def _of_deep_knn_star(_: str, methods: Methods) -> Iterator[Claim]:
    for other in ("cross-entropy", "triplet-hard", "triplet-hard-star"):
        for name, value in (("MCR", _RECALL), ("RS", _SMALLEST)):
            found = difference(methods, "deep-knn-star", other, value)
            if found is not None:
                text = f"deep kNN*: {name} above that of {_name(other)}, beyond chance"
                yield Claim(text, str(found), found.beyond_chance)


def _against_peers(_: str, methods: Methods) -> Iterator[Claim]:
    # Like with like: averaging over orientations is a peer's gain too, though it has to be built.
    averaged = {name: runs for name, runs in methods.items() if name.endswith("-8")}
    plain = {name: runs for name, runs in methods.items() if name not in averaged}
    for kind, among in (("", plain), (" with 8 orientations", averaged)):
        for name, value in (("P@10, r = 1", _PRECISION), ("MCR", _RECALL)):
            ours, theirs = (_best(among, value, peers=peers) for peers in (False, True))
            if ours is not None and theirs is not None:
                mine, its = _mean(among[ours], value), _mean(among[theirs], value)
                seen = f"{_name(ours)} {mine:.3f} against {_name(theirs)} {its:.3f}"
                yield Claim(f"best {name}{kind} is not a peer's", seen, (mine or 0) > (its or 0))


def _best(methods: Methods, value: Value, *, peers: bool) -> str | None:
    means = {
        name: mean
        for name, runs in methods.items()
        if name.startswith("peer-") == peers and (mean := _mean(runs, value)) is not None
    }
    return max(means, key=lambda name: means[name]) if means else None


def _mean(runs: dict[str, Run], value: Value) -> float | None:
    known = [found for run in runs.values() if (found := value(run)) is not None]
    return statistics.fmean(known) if known else None


def _name(method: str) -> str:
    return NAMES.get(method, method)


def main() -> None:
    """Print the claims, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, help="A Markdown file.")
    options = parser.parse_args()
    runs = read_runs(options.runs)
    if not runs:
        sys.exit(f"{options.runs} holds no results (DATA/METHOD/seedN/*.ndjson).")
    lines = [f"- {data}: {line}" for data, line in (*not_counted(runs), *claims(runs))]
    if options.output is None:
        print("\n".join(lines))
    else:
        options.output.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
