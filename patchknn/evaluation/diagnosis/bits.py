"""What an archive's codes are worth: balance and independence of bits, balls, collisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.hamming.packing import sort_keys, unpack_bits, words

MOST_ROWS = 2_000_000
_BALLS_OF, _VECTORS_OF = 200, 4096
_BLOCK = 16384
_UNSETTLED = 0.1

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class BitStatistics(NamedTuple):
    """The bits of n codes.

    ``ones`` (K,): share of ones. ``entropy`` (K,): −p·log2 p − (1 − p)·log2 (1 − p), in bits.
    ``mean_correlation``: mean of |r| over pairs of bits that both vary, None with fewer than two;
    ``largest_correlation`` with its ``pair`` of bits. ``effective_bits``: the participation ratio
    (Σλ)² / Σλ² of the eigenvalues λ of the bits' covariance: K for independent balanced bits, 1
    where all bits say the same, 0 where none varies.
    """

    n: int
    ones: Floats
    entropy: Floats
    mean_correlation: float | None
    largest_correlation: float | None
    pair: tuple[int, int] | None
    effective_bits: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "rows": self.n,
            "bits": len(self.ones),
            "mean_entropy": float(self.entropy.mean()),
            "least_entropy": float(self.entropy.min()),
            "stuck_bits": int((self.entropy == 0).sum()),
            "effective_bits": self.effective_bits,
            "mean_correlation": self.mean_correlation,
            "largest_correlation": self.largest_correlation,
            "most_correlated": None if self.pair is None else list(self.pair),
            "ones": self.ones.tolist(),
        }


def bit_statistics(codes: Codes) -> BitStatistics:
    """Of codes (n, K/8), n ≥ 1, block by block: memory grows with K² alone."""
    n, bits = len(codes), codes.shape[1] * 8
    both = np.zeros((bits, bits))
    block = _BLOCK * 64 // bits
    for start in range(0, n, block):
        values = unpack_bits(codes[start : start + block]).astype(np.float32)
        both += values.T @ values  # whole numbers below 2^24: exact
    ones = np.diag(both) / n
    covariance = both / n - np.outer(ones, ones)
    variance = np.diag(covariance)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(ones * np.log2(ones) + (1 - ones) * np.log2(1 - ones))
    entropy = np.where((ones > 0) & (ones < 1), entropy, 0.0)
    squares = float((covariance**2).sum())
    effective = float(variance.sum() ** 2 / squares) if squares > 0 else 0.0
    vary = np.flatnonzero((ones > 0) & (ones < 1))
    first, second = np.triu_indices(len(vary), 1)
    if not len(first):
        return BitStatistics(n, ones, entropy, None, None, None, effective)
    own = covariance[np.ix_(vary, vary)]
    spread = np.sqrt(np.diag(own))
    strength = np.abs(own[first, second] / (spread[first] * spread[second]))
    most = int(strength.argmax())
    pair = (int(vary[first[most]]), int(vary[second[most]]))
    mean, largest = float(strength.mean()), float(strength[most])
    return BitStatistics(n, ones, entropy, mean, largest, pair, effective)


def ball_sizes(codes: Codes, centres: npt.NDArray[np.int64], max_radius: int) -> npt.NDArray[Any]:
    """How many of the codes (n, K/8) lie within each radius of some of them, the own one left out.

    ``centres`` (m,) are their numbers; (m, max_radius + 1) int64, radii 0 to ``max_radius``.
    """
    sizes = np.zeros((len(centres), max_radius + 1), np.int64)
    targets = words(codes[centres])
    for start in range(0, len(codes), _BLOCK):
        block = words(codes[start : start + _BLOCK])
        for number, target in enumerate(targets):
            away = np.bitwise_count(block ^ target).sum(axis=1, dtype=np.int64)
            near = away[away <= max_radius]
            sizes[number] += np.bincount(near, minlength=max_radius + 1)
    sizes[:, 0] -= 1
    return np.cumsum(sizes, axis=1)


def collisions(codes: Codes, labels: npt.NDArray[np.int32], classes: int) -> list[dict[str, int]]:
    """By class: its rows, its distinct codes, and its rows whose code another class has too.

    ``labels`` (n,) count into the classes, −1 for none: their rows stand last, and mix with none.
    """
    _, code = np.unique(sort_keys(codes), return_inverse=True)
    pairs = np.unique(code.astype(np.int64) * (classes + 1) + labels + 1)
    code_of_pair, label_of_pair = pairs // (classes + 1), pairs % (classes + 1) - 1
    several = np.bincount(code_of_pair[label_of_pair >= 0], minlength=len(codes)) > 1
    mixed = several[code] & (labels >= 0)
    return [
        {
            "rows": int((labels == number).sum()),
            "codes": int((label_of_pair == number).sum()),
            "mixed": int((mixed & (labels == number)).sum()),
        }
        for number in [*range(classes), -1]
    ]


def unsettled_share(vectors: npt.NDArray[Any]) -> float:
    """The share of values of hash vectors (m, K) that lie near 0, where noise decides the bit.

    Near is below a tenth of the mean distance of that bit's values from 0. Of values that spread
    as a normal distribution around 0 these are 6.4 %; of such that settled at ±1, none.
    """
    size = np.abs(np.asarray(vectors, np.float64))
    return float((size < _UNSETTLED * size.mean(axis=0)).mean()) if size.size else 0.0


def diagnose_codes(snapshot: Snapshot, max_radius: int) -> dict[str, Any]:
    """All of it for the live rows of a snapshot, ready for JSON.

    Of more than two million rows an even sample serves; balls are those of 200 rows, hash vectors
    those of 4096. Returns ``bits``, ``codes`` (distinct ones, and by class), ``balls`` by radius.
    """
    codes, labels, features = _columns(snapshot)
    statistics = bit_statistics(codes).as_dict()
    statistics["unsettled"] = unsettled_share(snapshot.bundle().hash_vectors(features))
    rows = collisions(codes, labels, len(snapshot.classes))
    centres = _even(len(codes), _BALLS_OF)
    sizes = ball_sizes(codes, centres, max_radius)
    others = max(len(codes) - 1, 1)
    return {
        "bits": statistics,
        "codes": {
            "rows": len(codes),
            "distinct": len(np.unique(sort_keys(codes))),
            "mixed": sum(row["mixed"] for row in rows),
            "by_class": [
                {"class": name, **row}
                for name, row in zip([*snapshot.classes, None], rows, strict=True)
                if row["rows"]
            ],
        },
        "balls": [
            {
                "radius": radius,
                "mean": float(column.mean()),
                "median": float(np.median(column)),
                "largest": int(column.max()),
                "empty": float((column == 0).mean()),
                "share": float(column.mean() / others),
            }
            for radius, column in enumerate(sizes.T)
        ],
    }


def _columns(snapshot: Snapshot) -> tuple[Codes, npt.NDArray[np.int32], npt.NDArray[Any]]:
    """Codes (n, K/8) and labels (n,) of live rows, and the features (m, D) of a few of them."""
    parts = [(shard, shard.live_rows()) for shard in snapshot.shards]
    total = sum(len(rows) for _, rows in parts)
    step = -(-total // MOST_ROWS) if total else 1
    codes, labels, features = [], [], []
    for shard, rows in parts:
        kept = rows[::step]
        codes.append(shard.codes[kept])
        labels.append(shard.labels_at(kept))
        features.append(shard.features[_few(rows, total)])
    return np.concatenate(codes), np.concatenate(labels), np.concatenate(features)


def _few(rows: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    return rows[_even(len(rows), -(-_VECTORS_OF * len(rows) // max(total, 1)))]


def _even(n: int, count: int) -> npt.NDArray[np.int64]:
    """At most ``count`` of n numbers, evenly spread; all where there are so few."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))


def table_rows(diagnosis: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The figures of ``diagnose_codes`` that are single numbers, for a table."""
    shown = (
        *("bits", "mean_entropy", "least_entropy", "stuck_bits", "effective_bits"),
        *("mean_correlation", "largest_correlation", "unsettled"),
    )
    yield from ((name, diagnosis["bits"][name]) for name in shown)
    codes = diagnosis["codes"]
    yield from (("rows", codes["rows"]), ("distinct codes", codes["distinct"]))
    yield ("rows in codes of several classes", codes["mixed"])
