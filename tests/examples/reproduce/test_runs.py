"""What runs left, and the entropy that tells classes apart."""

from __future__ import annotations

import math
from itertools import combinations

import pytest


@pytest.mark.parametrize("counts", [[50, 50], [115, 3500], [10, 20, 30], [5, 1, 9, 7, 40]])
def test_needed_entropy_is_the_mean_over_all_bipartitions(counts, module):
    total, entropies = sum(counts), {}
    for size in range(1, len(counts)):
        for members in combinations(range(len(counts)), size):
            others = tuple(n for n in range(len(counts)) if n not in members)
            p = sum(counts[n] for n in members) / total
            both = frozenset((members, others))  # one way, whichever side is called 1
            entropies[both] = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    assert len(entropies) == 2 ** (len(counts) - 1) - 1
    expected = sum(entropies.values()) / len(entropies)
    assert module("runs").needed_entropy(counts) == pytest.approx(expected, rel=1e-12)


def test_needed_entropy_of_many_classes_is_drawn(module):
    assert module("runs").needed_entropy([7] * 40) == pytest.approx(0.98, abs=0.02)
    assert module("runs").needed_entropy([7]) is None
