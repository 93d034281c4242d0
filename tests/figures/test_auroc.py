"""The area under the ROC curve, against scikit-learn and against pairs counted one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from patchknn.figures.auroc import auroc, auroc_within

_rows = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 2)), min_size=1, max_size=30
)


def _columns(rows: list[tuple[int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, positive, strata = zip(*rows, strict=True)
    return np.array(scores) / 5, np.array(positive), np.array(strata)


@given(_rows)
@settings(max_examples=80, deadline=None)
def test_it_agrees_with_scikit_learn(rows):
    scores, positive, _ = _columns(rows)
    found = auroc(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(positive, scores))


@given(_rows)
@settings(max_examples=80, deadline=None)
def test_within_strata_it_counts_the_pairs_of_one_stratum(rows):
    right, pairs = 0.0, 0
    for (one, high, mine), (other, low, theirs) in itertools.product(rows, rows):
        if high and not low and mine == theirs:
            pairs += 1
            right += (one > other) + (one == other) / 2
    found = auroc_within(*_columns(rows))
    assert found == (pytest.approx(right / pairs) if pairs else None)


def test_without_rows_there_is_no_area():
    nothing = np.zeros(0)
    assert auroc(nothing, nothing > 0) is None
    assert auroc_within(nothing, nothing > 0, nothing.astype(int)) is None
