#!/usr/bin/env python3
"""Judge stored features by kNN: as they are, or after NCA (scikit-learn) or LMNN (metric-learn).

``export`` writes an archive's features and labels as .npz and needs patchknn. ``judge`` needs
NumPy and scikit-learn, and for LMNN metric-learn, which needs scikit-learn below 1.8. It prints
one JSON object with the names of `patchknn evaluate`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

_MEAN_SQUARED_DISTANCE = 10.0


def main() -> None:
    """Export, or judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export")
    export.add_argument("archive", type=Path)
    export.add_argument("output", type=Path)
    judge = commands.add_parser("judge")
    judge.add_argument("train", type=Path, help="The gallery, an .npz of export.")
    judge.add_argument("test", type=Path, help="The queries.")
    judge.add_argument("--method", choices=("knn", "nca", "lmnn"), default="knn")
    judge.add_argument("--k", type=int, default=10)
    judge.add_argument("--pca", type=int, default=64, help="Dimensions that NCA and LMNN see.")
    judge.add_argument("--iterations", type=int, default=50)
    judge.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "export":
        _export(options.archive, options.output)
    else:
        print(json.dumps(_judge(options)))


def _export(archive: Path, output: Path) -> None:
    from patchknn.files import replaced_atomically
    from patchknn.training.stored import read_stored

    stored = read_stored([archive])
    known = [row for row, label in enumerate(stored.labels) if label is not None]
    labels = np.array([stored.labels[row] for row in known])
    output.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(output) as file:
        np.savez(file, features=stored.features[known], labels=labels)


def _judge(options: argparse.Namespace) -> dict[str, Any]:
    tables = [np.load(path) for path in (options.train, options.test)]
    (gallery, labels), (queries, true) = (
        (table["features"].astype(np.float64), table["labels"]) for table in tables
    )
    began = time.monotonic()
    if options.method != "knn":
        gallery, queries = _reduced(gallery, queries, options)
        learner = _learner(options)
        learner.fit(gallery, labels)
        gallery, queries = learner.transform(gallery), learner.transform(queries)
    seconds = time.monotonic() - began
    figures = _figures(gallery, labels, queries, true, options.k)
    return {
        "method": options.method,
        "n": len(true),
        "k": options.k,
        **figures,
        "fit_seconds": seconds,
    }


def _reduced(
    gallery: np.ndarray, queries: np.ndarray, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """Principal components, scaled: where d² is in the hundreds, NCA's softmax has no gradient."""
    from sklearn.decomposition import PCA

    pca = PCA(min(options.pca, *gallery.shape), random_state=options.seed).fit(gallery)
    scale = np.sqrt(_MEAN_SQUARED_DISTANCE / 2 / pca.explained_variance_.sum())
    return pca.transform(gallery) * scale, pca.transform(queries) * scale


def _learner(options: argparse.Namespace) -> Any:
    if options.method == "nca":
        from sklearn.neighbors import NeighborhoodComponentsAnalysis

        return NeighborhoodComponentsAnalysis(
            max_iter=options.iterations, init="identity", random_state=options.seed
        )
    from metric_learn import LMNN

    return LMNN(init="identity", max_iter=options.iterations, random_state=options.seed)


def _figures(
    gallery: np.ndarray, labels: np.ndarray, queries: np.ndarray, true: np.ndarray, k: int
) -> dict[str, float]:
    """Votes of the k nearest by L2; a tie goes to the smaller mean distance, as in patchknn."""
    from sklearn.neighbors import NearestNeighbors

    distances, rows = NearestNeighbors(n_neighbors=k).fit(gallery).kneighbors(queries)
    neighbours = labels[rows]
    classes = np.unique(labels)
    votes = neighbours[:, :, None] == classes
    counts = votes.sum(1)
    mean = (votes * distances[:, :, None]).sum(1) / np.maximum(counts, 1)
    predicted = classes[np.argmax(counts + 0.5 / (1 + mean), axis=1)]
    right = predicted == true
    recalls = [
        (int((true == name).sum()), float(right[true == name].mean())) for name in np.unique(true)
    ]
    hits = (neighbours == true[:, None]).sum(1)
    return {
        "accuracy": float(right.mean()),
        "mean_class_recall": float(np.mean([recall for _, recall in recalls])),
        "recall_smallest_class": min(recalls)[1],
        "l2_precision_at_k": float(hits.mean() / k),
        "all_k_true": float((hits == k).mean()),
    }


if __name__ == "__main__":
    main()
