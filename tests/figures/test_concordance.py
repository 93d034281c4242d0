"""Harrell's concordance, against pairs counted one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.figures import concordance as module
from patchknn.figures.auroc import auroc
from patchknn.figures.concordance import concordance

_rows = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 4), st.integers(0, 1)),
    min_size=1,
    max_size=25,
)


@given(_rows)
@settings(max_examples=100, deadline=None)
def test_it_is_the_share_of_comparable_pairs_in_the_right_order(rows):
    right, pairs = 0.0, 0
    for (time, event, risk, mine), (later, seen, other, theirs) in itertools.product(rows, rows):
        comparable = event and (time < later or (time == later and not seen))
        if comparable and mine == theirs:
            pairs += 1
            right += (risk > other) + (risk == other) / 2
    time, event, risk, strata = map(np.array, zip(*rows, strict=True))
    found = concordance(time.astype(float), event, risk.astype(float), strata)
    assert found == (pytest.approx(right / pairs) if pairs else None)


@pytest.mark.parametrize("levels", [4, 1000])
def test_it_is_that_of_scikit_survival(levels):
    from sksurv.metrics import concordance_index_censored

    rng = np.random.default_rng(levels)
    time, event = rng.integers(1, levels, 200).astype(float), rng.random(200) < 0.6
    risk = rng.integers(0, levels, 200).astype(float)
    expected, *_ = concordance_index_censored(event, time, risk)
    assert concordance(time, event, risk) == pytest.approx(expected, rel=1e-12)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    time, event, risk = rng.exponential(size=50), rng.random(50) < 0.6, rng.normal(size=50)
    whole = concordance(time, event, risk)
    monkeypatch.setattr(module, "_CELLS", 60)
    assert concordance(time, event, risk) == pytest.approx(whole)


def test_where_all_events_come_at_once_it_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(1)
    event, risk = rng.random(60) < 0.4, rng.normal(size=60)
    assert concordance(np.ones(60), event, risk) == pytest.approx(auroc(risk, event))
