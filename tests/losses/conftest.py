"""Batches for losses and literal float64 helpers that share nothing with the code under test."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch


@pytest.fixture
def make_batch() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Rows (B, K) and labels (B,) of given class sizes, shuffled."""

    def make(
        sizes: tuple[int, ...],
        dim: int = 8,
        *,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        rows = rng.normal(size=(len(labels), dim)) * scale
        return torch.tensor(rows, dtype=dtype), torch.tensor(labels)

    return make


@pytest.fixture
def literal_distance() -> Callable[[list[float], list[float]], float]:
    """The Euclidean distance of two lists of numbers."""
    return math.dist


@pytest.fixture
def literal_triplets() -> Callable[[torch.Tensor, torch.Tensor], list[tuple[int, int, int]]]:
    """Paper A's pairing by plain loops: farthest positive with nearest negative, and so on."""

    def mine(rows: torch.Tensor, labels: torch.Tensor) -> list[tuple[int, int, int]]:
        points, classes = rows.double().tolist(), labels.tolist()
        found = []
        for a in range(len(points)):
            others = [i for i in range(len(points)) if i != a]
            positives = [i for i in others if classes[i] == classes[a]]
            negatives = [i for i in others if classes[i] != classes[a]]
            positives.sort(key=lambda i: -math.dist(points[a], points[i]))
            negatives.sort(key=lambda i: math.dist(points[a], points[i]))
            found += [(a, p, n) for p, n in zip(positives, negatives, strict=False)]
        return found

    return mine
