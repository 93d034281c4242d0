"""Whether one method is better than another on the same queries: a test by patient.

It asks of each patient how many more of its queries one method gets right. If the methods were
exchangeable, the sign of each such difference might as well be the other one: p is the share of
sign patterns whose sum is as far from 0 as the one seen (Fisher's test; exact for up to 16 patients
that differ, else of random patterns). With m such patients p cannot fall below 2 / 2^m.

McNemar's test over queries is not here: it takes the hundreds of patches of one patient for
independent witnesses, and calls differences certain that another patient would undo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.outcomes import Outcomes
from patchknn.figures.resampling import Floats, Interval, dense_numbers, draws, middle

_EXACT = 16
_PATTERNS = 10_000


@dataclass(frozen=True)
class Difference:
    """How much more a figure is than that of the other method, from where to where, and the p."""

    difference: float
    interval: Interval | None
    p: float

    def as_json(self) -> dict[str, Any]:
        """The entries of a difference."""
        interval = None if self.interval is None else list(self.interval)
        return {"difference": self.difference, "interval": interval, "p": self.p}


@dataclass(frozen=True)
class Paired:
    """One method beside another, ``against``, on the ``n`` queries of ``patients`` of both."""

    against: str
    n: int
    patients: int
    accuracy: Difference
    precision_at_k: Difference

    def as_json(self) -> dict[str, Any]:
        """The object under ``paired``: the difference is that of the accuracy."""
        return {
            "against": self.against,
            "n": self.n,
            "patients": self.patients,
            **self.accuracy.as_json(),
            "precision_at_k": self.precision_at_k.as_json(),
        }


def compare(
    first: Outcomes, other: Outcomes, against: str, replicates: int, seed: int
) -> Paired | None:
    """How ``other`` differs from ``first``, called ``against``, on the queries of both.

    Queries are told by their names; patients are those of ``first``. ``replicates`` draws of
    patients give the intervals. None where there is no such query.
    """
    mine, its = _common(first, other)
    if not len(mine):
        return None
    groups = dense_numbers(first.groups[mine])
    right = other.correct[its].astype(np.float64) - first.correct[mine]
    hits = other.true_neighbours[its] / other.k - first.true_neighbours[mine] / first.k
    columns = np.stack([right, hits], axis=1)
    return Paired(
        against, len(mine), int(groups.max()) + 1, *_differences(groups, columns, replicates, seed)
    )


def sign_flip_p(differences: Floats, seed: int = 0) -> float:
    """The p of a paired test by sign flips, two-sided; ``differences`` (G,) one per patient.

    Exact for up to 16 that are not 0; else of 10,000 random patterns, that seen being one more.
    """
    differences = differences[differences != 0]
    m = len(differences)
    if m == 0:
        return 1.0
    # Sums of fractions may differ in their last bit from the one they equal.
    bound = abs(differences.sum()) - 1e-9 * float(np.abs(differences).sum())
    if m <= _EXACT:
        # A pattern and its opposite are equally far from 0: half of them tells all.
        numbers = np.arange(1 << (m - 1))
        signs = 1.0 - 2.0 * ((numbers[:, None] >> np.arange(m)) & 1)
        return float((np.abs(signs @ differences) >= bound).mean())
    # Of c patients with the same difference only how many keep their sign matters.
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    kept = np.random.default_rng(seed).binomial(counts, 0.5, size=(_PATTERNS, len(counts)))
    extreme = int((np.abs((2 * kept - counts) @ sizes) >= bound).sum())
    return (extreme + 1) / (_PATTERNS + 1)


def _differences(
    groups: npt.NDArray[np.int64], columns: Floats, replicates: int, seed: int
) -> list[Difference]:
    """The mean of each column of differences (n, m) by query, with its interval and p."""
    sums = np.zeros((int(groups.max()) + 1, columns.shape[1]))
    np.add.at(sums, groups, columns)
    intervals: list[Interval | None] = [None] * columns.shape[1]
    if len(sums) > 1 and replicates > 0:
        counts = np.bincount(groups)
        blocks = [
            weights @ sums / (weights @ counts)[:, None]
            for weights in draws(len(sums), replicates, seed, len(sums))
        ]
        intervals = [middle(values) for values in np.concatenate(blocks).T]
    return [
        Difference(float(values.mean()), interval, sign_flip_p(own, seed))
        for values, interval, own in zip(columns.T, intervals, sums.T, strict=True)
    ]


def _common(first: Outcomes, other: Outcomes) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if first.queries == other.queries:
        every = np.arange(len(first))
        return every, every
    places = {name: number for number, name in enumerate(first.queries)}
    its = [number for number, name in enumerate(other.queries) if name in places]
    mine = [places[other.queries[number]] for number in its]
    return np.array(mine, np.int64), np.array(its, np.int64)
