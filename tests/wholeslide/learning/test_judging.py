"""Intervals over patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.learning.judging import Judged, judged_figures
from patchknn.wholeslide.tasks.reading import Question


@pytest.fixture
def cohort(make_cohort):
    table = make_cohort(slides=60, side=4)
    return read_cohort(table.parent, table, Question())


def _judged(cohort, scores):
    judged = Judged(cohort)
    judged.add(range(60), 1, np.stack([1 - scores, scores], axis=1))
    return judged


def test_the_interval_is_that_of_patients_drawn_one_by_one(cohort):
    rng = np.random.default_rng(1)
    true = cohort.targets[:, 0]
    scores = np.clip(0.5 + 0.15 * (true - 0.5) + 0.2 * rng.normal(size=60), 0, 1)
    found = judged_figures(_judged(cohort, scores), 1000, 0)["auc"]
    assert found.value == pytest.approx(roc_auc_score(true, scores))
    owners = np.array([case.patient for case in cohort.cases])
    names = np.unique(owners)
    areas = []
    for _ in range(1000):
        drawn = rng.choice(names, len(names))
        rows = np.concatenate([np.flatnonzero(owners == name) for name in drawn])
        areas.append(roc_auc_score(true[rows], scores[rows]))
    expected = np.quantile(areas, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.02)


def test_what_is_perfect_is_so_in_every_draw(cohort):
    found = judged_figures(_judged(cohort, cohort.targets[:, 0]), 100, 0)
    assert found["auc"].as_json() == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_without_judged_slides_there_is_no_figure(cohort):
    assert judged_figures(Judged(cohort), 100, 0) == {}
