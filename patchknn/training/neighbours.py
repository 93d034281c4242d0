"""Two-stage retrieval of a small validation set in plain NumPy, to judge an epoch by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.hamming.packing import unpack_bits

_CHUNK = 256


@dataclass(frozen=True)
class Embedding:
    """Rows as search sees them: features (N, D) float32, codes (N, K/8) uint8, labels (N,) int."""

    features: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def validate(
    gallery: Embedding, queries: Embedding, n_classes: int, k: int = 10, radius: int = 1
) -> dict[str, float]:
    """How well ``queries`` find their class in ``gallery``, as paper A searches (2.4).

    Keys: ``accuracy`` and ``mean_class_recall`` of the vote of k neighbours, ``p_at_10`` and
    ``all_k_true`` of the two-stage search (the ball of ``radius``, widened to the smallest that
    holds k, at most K/4; missing neighbours count as wrong), ``l2_p_at_10`` by L2 over all rows,
    and per radius 1 and 2 the mean ball in rows (``ball_1``) and the share of empty ones
    (``empty_1``).
    """
    centre = gallery.features.mean(axis=0)  # less cancellation in |a|² + |b|² − 2ab
    rows = (gallery.features - centre).astype(np.float32)
    norms = np.square(rows).sum(axis=1)
    signs = _signs(gallery.codes)
    bits = signs.shape[1]
    found: dict[str, list[npt.NDArray[Any]]] = {}
    for start in range(0, len(queries.labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        labels = queries.labels[part]
        vectors = (queries.features[part] - centre).astype(np.float32)
        squared = norms - 2 * vectors @ rows.T + np.square(vectors).sum(axis=1)[:, None]
        distances = np.sqrt(np.maximum(squared, 0))
        hamming = np.rint((bits - _signs(queries.codes[part]) @ signs.T) / 2).astype(np.int32)
        reach = np.partition(hamming, min(k, hamming.shape[1]) - 1)[:, min(k, hamming.shape[1]) - 1]
        reach = np.clip(reach, radius, max(radius, bits // 4))
        inside = np.where(hamming <= reach[:, None], distances, np.inf)
        votes, true = _votes(inside, gallery.labels, labels, n_classes, k)
        _, l2_true = _votes(distances, gallery.labels, labels, n_classes, k)
        values = {"predicted": votes, "true": true, "l2_true": l2_true}
        values |= {f"ball_{r}": (hamming <= r).sum(axis=1) for r in (1, 2)}
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    return _summary(whole, queries.labels, k)


def _summary(
    whole: dict[str, npt.NDArray[Any]], labels: npt.NDArray[np.int64], k: int
) -> dict[str, float]:
    correct = whole["predicted"] == labels
    recalls = [correct[labels == label].mean() for label in np.unique(labels)]
    return {
        "accuracy": float(correct.mean()),
        "mean_class_recall": float(np.mean(recalls)),
        "p_at_10": float((whole["true"] / k).mean()),
        "all_k_true": float((whole["true"] == k).mean()),
        "l2_p_at_10": float((whole["l2_true"] / k).mean()),
        "ball_1": float(whole["ball_1"].mean()),
        "ball_2": float(whole["ball_2"].mean()),
        "empty_1": float((whole["ball_1"] == 0).mean()),
        "empty_2": float((whole["ball_2"] == 0).mean()),
    }


def _votes(
    distances: npt.NDArray[Any],
    gallery_labels: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    n_classes: int,
    k: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Predicted class (Q,), −1 without votes, and the number of true neighbours (Q,)."""
    k = min(k, distances.shape[1])
    nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
    reached = np.take_along_axis(distances, nearest, axis=1)
    present = np.isfinite(reached)
    classes = np.where(present, gallery_labels[nearest], -1)
    one_hot = classes[:, :, None] == np.arange(n_classes)
    counts = one_hot.sum(axis=1)
    # Ties go to the smaller mean distance: 1/(1 + d) is below 1, so it never outweighs a vote.
    sums = np.where(one_hot, reached[:, :, None], 0).sum(axis=1)
    closeness = 1 / (1 + sums / np.maximum(counts, 1))
    predicted = np.where(counts > 0, counts + 0.5 * closeness, -1).argmax(axis=1)
    predicted = np.where(present.any(axis=1), predicted, -1)
    return predicted, (classes == labels[:, None]).sum(axis=1)


def _signs(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return unpack_bits(codes).astype(np.float32) * 2 - 1
