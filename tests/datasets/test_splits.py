"""Splits by patient."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.datasets.patches import Patch
from patchknn.datasets.splits import split_by_patient
from patchknn.errors import UsageError


def _patch(number, patient, label):
    return Patch(f"{number}.png", Path(f"{number}.png"), "image", label=label, patient=patient)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("AB")), min_size=1), st.integers(0, 9))
def test_no_patient_is_on_two_sides_and_no_side_is_needlessly_empty(rows, seed):
    patches = [_patch(i, f"P{patient}", label) for i, (patient, label) in enumerate(rows)]
    splits = split_by_patient(patches, (70, 15, 15), seed)
    sides = defaultdict(set)
    for patch, split in zip(patches, splits, strict=True):
        sides[patch.patient].add(split)
    assert all(len(names) == 1 for names in sides.values())
    assert len(set(splits)) == min(3, len(sides))
    assert splits == split_by_patient(patches, (0.7, 0.15, 0.15), seed)


def test_sizes_and_classes_are_near_the_shares():
    generator = np.random.default_rng(0)
    patches = []
    for patient in range(60):
        label = "rare" if patient % 6 == 0 else "common"
        count = generator.integers(10, 40)
        patches += [_patch(len(patches) + i, f"P{patient}", label) for i in range(count)]
    splits = split_by_patient(patches, (0.7, 0.3), seed=1)
    for label in ("rare", "common"):
        of_label = Counter(s for s, p in zip(splits, patches, strict=True) if p.label == label)
        assert abs(of_label["train"] / of_label.total() - 0.7) < 0.07


def test_an_unknown_patient_is_its_own():
    patches = [_patch(i, None, "A") for i in range(100)]
    counts = Counter(split_by_patient(patches, (0.8, 0.2), seed=0))
    assert counts == {"train": 80, "val": 20}


@pytest.mark.parametrize("fractions", [(1.0,), (0.5, -0.1), (0.0, 1.0), (1, 1, 1, 1)])
def test_impossible_fractions_are_named(fractions):
    with pytest.raises(UsageError, match="such as 70/15/15"):
        split_by_patient([_patch(0, "P", "A")], fractions, 0)
