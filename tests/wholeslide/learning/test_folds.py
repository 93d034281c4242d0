"""No patient on two sides, every slide judged once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from patchknn.errors import InputError
from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.learning.folds import (
    all_slides,
    cross_validation,
    given_split,
    without_judging,
    without_split,
)
from patchknn.wholeslide.tasks.reading import Question
from patchknn.wholeslide.tasks.survival import Survival


@pytest.fixture
def cohort(make_cohort):
    table = make_cohort(slides=40, side=4)
    return read_cohort(table.parent, table, Question())


def test_every_slide_is_judged_once_by_strangers_to_its_patient(cohort):
    folds = cross_validation(cohort, 5, 0)
    assert sorted(i for fold in folds for i in fold.judged) == list(range(40))
    for fold in folds:
        sides = [
            {cohort.cases[i].patient for i in side} for side in (fold.train, fold.stop, fold.judged)
        ]
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & sides[2]
        assert sorted((*fold.train, *fold.stop, *fold.judged)) == list(range(40))
        classes = {cohort.targets[i, 0] for i in fold.judged}
        assert classes == {0.0, 1.0}
        assert 3 <= len(fold.stop) <= 8


def test_too_few_patients_are_said(cohort):
    with pytest.raises(InputError, match="too few for 41 folds"):
        cross_validation(cohort, 41, 0)


def test_splits_of_the_table_are_kept(cohort):
    names = ["train"] * 20 + ["val"] * 5 + ["test"] * 10 + [None] * 5
    owners = [f"P{n}" for n in range(40)]
    cases = [
        dataclasses.replace(case, split=name, patient=owner)
        for case, name, owner in zip(cohort.cases, names, owners, strict=True)
    ]
    given = dataclasses.replace(cohort, cases=tuple(cases))
    fold = given_split(given, 0)
    assert (len(fold.train), len(fold.stop), len(fold.judged)) == (20, 5, 10)
    cases[30] = dataclasses.replace(cases[30], patient="P0")
    with pytest.raises(InputError, match="Patient P0 has slides to train on and slides to be"):
        given_split(dataclasses.replace(cohort, cases=tuple(cases)), 0)
    with pytest.raises(InputError, match="has the split 'train'"):
        given_split(cohort, 0)


def _with(cohort, splits, owners=None):
    owners = owners or [f"P{n}" for n in range(40)]
    cases = [
        dataclasses.replace(case, split=split, patient=owner)
        for case, split, owner in zip(cohort.cases, splits, owners, strict=True)
    ]
    return dataclasses.replace(cohort, cases=tuple(cases))


def test_splits_are_known_whatever_their_capitals_and_others_refused(cohort):
    names = ["Train"] * 20 + ["VAL"] * 5 + ["Test"] * 10 + [None] * 5
    given = _with(cohort, names)
    fold = given_split(given, 0)
    assert (len(fold.train), len(fold.stop), len(fold.judged)) == (20, 5, 10)
    assert without_split(given) == 5
    with pytest.raises(InputError, match="'holdout' is no split that --own-split knows"):
        given_split(_with(cohort, [*names[:-1], "holdout"]), 0)
    owners = ["P0" if n in {3, 22} else f"P{n}" for n in range(40)]
    with pytest.raises(InputError, match="P0 has slides to train on and slides to stop by"):
        given_split(_with(cohort, names, owners), 0)


def test_a_fold_that_could_learn_nothing_is_refused(cohort):
    targets = cohort.targets.copy()
    targets[:] = 0
    owners = [case.patient for case in cohort.cases]
    targets[[i for i, own in enumerate(owners) if own == owners[0]]] = 1
    one = dataclasses.replace(cohort, targets=targets)
    with pytest.raises(InputError, match=r"nothing can be learnt, of its \d+ slides .* all are"):
        cross_validation(one, 5, 0)
    events = np.stack([np.arange(40.0), np.zeros(40)], axis=1)
    events[-1, 1] = 1  # the last one, when nobody else is at risk
    survival = dataclasses.replace(cohort, task=Survival("t", "e"), targets=events)
    with pytest.raises(InputError, match="none has the event while another is at risk"):
        without_judging(survival, 0)


def test_all_slides_train(cohort):
    assert all_slides(cohort).train == tuple(range(40))
    fold = without_judging(cohort, 0)
    assert sorted((*fold.train, *fold.stop)) == list(range(40))
    assert fold.stop
