"""The validation figures against plain loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.training.neighbours import Embedding, validate


def _random(count, seed, dim=6, bits=16, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = (rng.normal(size=(count, dim)) + 2 * np.eye(dim)[labels]).astype(np.float32)
    codes = np.packbits(features @ np.random.default_rng(9).normal(size=(dim, bits)) > 0, axis=1)
    return Embedding(features, codes, labels)


def _hamming(a, b):
    return bin(int.from_bytes(a.tobytes()) ^ int.from_bytes(b.tobytes())).count("1")


def _literal(gallery, queries, k, radius):
    correct, true, true_l2, balls = [], [], [], {1: [], 2: []}
    bits = 8 * gallery.codes.shape[1]
    for feature, code, label in zip(queries.features, queries.codes, queries.labels, strict=True):
        distances = np.linalg.norm(gallery.features.astype(float) - feature.astype(float), axis=1)
        hamming = np.array([_hamming(code, other) for other in gallery.codes])
        for r, sizes in balls.items():
            sizes.append((hamming <= r).sum())
        reach = radius
        while (hamming <= reach).sum() < k and reach < bits // 4:
            reach += 1
        inside = [i for i in np.argsort(distances) if hamming[i] <= reach][:k]
        classes = [gallery.labels[i] for i in inside]
        true.append(classes.count(label))
        true_l2.append(sum(gallery.labels[i] == label for i in np.argsort(distances)[:k]))
        if not inside:
            correct.append(False)
            continue
        means = {
            c: np.mean([distances[i] for i in inside if gallery.labels[i] == c]) for c in classes
        }
        winner = min(set(classes), key=lambda c: (-classes.count(c), means[c]))
        correct.append(winner == label)
    correct = np.array(correct)
    recalls = [correct[queries.labels == c].mean() for c in np.unique(queries.labels)]
    return {
        "accuracy": correct.mean(),
        "mean_class_recall": np.mean(recalls),
        "p_at_10": np.mean(true) / k,
        "all_k_true": np.mean(np.array(true) == k),
        "l2_p_at_10": np.mean(true_l2) / k,
        "ball_1": np.mean(balls[1]),
        "ball_2": np.mean(balls[2]),
        "empty_1": np.mean(np.array(balls[1]) == 0),
        "empty_2": np.mean(np.array(balls[2]) == 0),
    }


@pytest.mark.parametrize(("rows", "k", "radius"), [(200, 10, 1), (60, 4, 2), (7, 10, 1)])
def test_the_figures_equal_plain_loops(rows, k, radius):
    gallery, queries = _random(rows, 0), _random(300, 1)
    figures = validate(gallery, queries, 3, k=k, radius=radius)
    assert figures == pytest.approx(_literal(gallery, queries, k, radius))
