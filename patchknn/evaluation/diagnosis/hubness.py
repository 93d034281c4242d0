"""Hubness: whether some rows are neighbours of many queries, and others of none.

Radovanović, Nanopoulos and Ivanović 2010, J. Mach. Learn. Res. 11: N_k(x), the k-occurrences of a
row x, is how often it is among the k neighbours of a query; its skewness, E(N_k − µ)³ / σ³, is 0
where it spreads evenly to both sides and grows with hubness (section 2.2). Hubs are rows with
N_k > µ + 2σ, anti-hubs have N_k = 0. A "bad" occurrence is one among neighbours of a query of
another class (section 6).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.outcomes import Outcomes

_MOST_BINS = 50

Ints = npt.NDArray[np.int64]


class Hubness(NamedTuple):
    """k-occurrences of the live rows ``rows`` (n,) int64 of a snapshot.

    ``occurrences`` (n,): N_k; ``bad`` (n,): those for queries of another class.
    """

    rows: Ints
    occurrences: Ints
    bad: Ints

    @property
    def skewness(self) -> float | None:
        """S of N_k; None where all rows occur equally often."""
        away = self.occurrences - self.occurrences.mean()
        variance = float((away**2).mean())
        return float((away**3).mean() / variance**1.5) if variance > 0 else None

    @property
    def antihubs(self) -> float:
        """The share of rows that are nobody's neighbour."""
        return float((self.occurrences == 0).mean())

    @property
    def hubs(self) -> npt.NDArray[np.bool_]:
        """Which rows (n,) are hubs."""
        limit = self.occurrences.mean() + 2 * self.occurrences.std()
        return np.asarray(self.occurrences > limit)


def hubness(snapshot: Snapshot, outcomes: Outcomes, *, labelled_only: bool = False) -> Hubness:
    """Count over all queries; ``labelled_only``: rows without a label could not be found."""
    counts = np.zeros(snapshot.n_rows, np.int64)
    bad = np.zeros(snapshot.n_rows, np.int64)
    for start in range(0, len(outcomes), 65536):
        some = slice(start, start + 65536)
        rows, other = outcomes.rows[some], outcomes.neighbours[some]
        there = rows >= 0
        np.add.at(counts, rows[there], 1)
        np.add.at(bad, rows[there & (other != outcomes.label[some, None])], 1)
    findable = []
    for shard in snapshot.shards:
        live = shard.live_rows()
        kept = live[shard.labels_at(live) >= 0] if labelled_only else live
        findable.append(kept + shard.first_row)
    rows = np.concatenate([np.zeros(0, np.int64), *findable])
    return Hubness(rows, counts[rows], bad[rows])


def hubness_as_dict(
    snapshot: Snapshot, outcomes: Outcomes, *, labelled_only: bool = False, top: int = 10
) -> dict[str, Any]:
    """Ready for JSON: figures, the distribution of N_k, and the ``top`` rows by N_k."""
    found = hubness(snapshot, outcomes, labelled_only=labelled_only)
    hubs = found.hubs
    total = int(found.occurrences.sum())
    first = np.argsort(-found.occurrences, kind="stable")[:top]
    return {
        "rows": len(found.rows),
        "k": outcomes.k,
        "queries": len(outcomes),
        "mean_occurrence": float(found.occurrences.mean()) if len(found.rows) else None,
        "skewness": found.skewness if len(found.rows) else None,
        "antihubs": found.antihubs if len(found.rows) else None,
        "hubs": int(hubs.sum()),
        "occurrences_of_hubs": float(found.occurrences[hubs].sum() / total) if total else None,
        "bad_occurrences": float(found.bad.sum() / total) if total else None,
        "distribution": _distribution(found.occurrences),
        "top": [
            _hub(snapshot, *numbers)
            for numbers in zip(
                found.rows[first].tolist(),
                found.occurrences[first].tolist(),
                found.bad[first].tolist(),
                strict=True,
            )
            if numbers[1]
        ],
    }


def _hub(snapshot: Snapshot, row: int, occurrences: int, bad: int) -> dict[str, Any]:
    stored = snapshot.row(row)
    return {"id": stored.id, "label": stored.label, "occurrences": occurrences, "bad": bad}


def _distribution(occurrences: Ints) -> list[dict[str, int]]:
    """How many rows occur ``low`` to ``high`` times, in at most some fifty steps of one width."""
    if not len(occurrences):
        return []
    width = -(-(int(occurrences.max()) + 1) // _MOST_BINS)
    counts = np.bincount(occurrences // width)
    return [
        {"low": number * width, "high": (number + 1) * width - 1, "rows": int(count)}
        for number, count in enumerate(counts.tolist())
    ]
