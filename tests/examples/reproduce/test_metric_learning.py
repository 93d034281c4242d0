"""kNN and NCA on stored features."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

_CLASSES = ("epithelial", "fibroblast", "inflammatory")


def test_stored_features_are_judged_by_their_neighbours(tmp_path, capsys, monkeypatch, module):
    random = np.random.default_rng(3)
    labels, true = (np.array(_CLASSES)[random.integers(0, 3, count)] for count in (90, 40))
    features, queries = (random.normal(size=(count, 8)) for count in (90, 40))
    centres = {name: random.normal(size=8) for name in _CLASSES}
    features += [centres[name] for name in labels]
    queries += [centres[name] for name in true]
    np.savez(tmp_path / "train.npz", features=features, labels=labels)
    np.savez(tmp_path / "test.npz", features=queries, labels=true)
    words = ["judge", str(tmp_path / "train.npz"), str(tmp_path / "test.npz"), "--k", "5"]
    found = {}
    for method in ("knn", "nca"):
        monkeypatch.setattr(sys, "argv", ["metric_learning.py", *words, "--method", method])
        module("metric_learning").main()
        found[method] = json.loads(capsys.readouterr().out)
    hits = []
    for query, name in zip(queries, true, strict=True):
        nearest = np.argsort(((features - query) ** 2).sum(1), kind="stable")[:5]
        hits.append((labels[nearest] == name).sum())
    assert found["knn"]["l2_precision_at_k"] == pytest.approx(np.mean(hits) / 5)
    assert found["knn"]["all_k_true"] == pytest.approx(np.mean(np.array(hits) == 5))
    assert found["knn"]["accuracy"] >= np.mean(np.array(hits) >= 3)
    assert found["nca"]["accuracy"] > 0.5
