import math
from collections.abc import Callable

import numpy as np
import pytest

from patchknn.evaluation.calibration.conformal import (
    conformal_threshold,
    coverage_over_splits,
    design_effect,
    nonconformity,
)
from patchknn.evaluation.calibration.group_splits import folds_of
from patchknn.search.calibration import prediction_sets
from patchknn.search.class_scores import Voting, class_probabilities

Draw = Callable[..., tuple[Voting, np.ndarray]]
PRIORS = np.array([0.5, 0.3, 0.2])


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_over_twenty_random_splits_is_the_promised_one(
    drawn_votes: Draw, coverage: float
) -> None:
    """Within two standard errors: patients who are drawn alike, one half judged by the other."""
    voting, true = drawn_votes(11, 6000)
    probabilities = class_probabilities(voting, PRIORS)
    groups = np.random.default_rng(2).integers(0, 60, 6000)
    found = coverage_over_splits(probabilities, true, groups, coverage)
    assert abs(found.coverage - coverage) <= 2 * found.error
    assert 0 < found.error < 0.01
    assert 0.5 < found.set_size < 3  # below 1: some sets are empty, where more than that is right


def test_coverage_of_fresh_data_is_the_promised_one(drawn_votes: Draw) -> None:
    held = []
    for seed in range(20):
        voting, true = drawn_votes(100 + seed, 400)
        threshold = conformal_threshold(
            nonconformity(class_probabilities(voting, PRIORS), true), 0.9
        )
        voting, true = drawn_votes(200 + seed, 400)
        sets = prediction_sets(class_probabilities(voting, PRIORS), threshold)
        held.append(sets[np.arange(400), true].mean())
    assert abs(np.mean(held) - 0.9) <= 2 * np.std(held, ddof=1) / np.sqrt(20)


def test_splits_are_judged_as_a_loop_judges_them(drawn_votes: Draw) -> None:
    voting, true = drawn_votes(4, 500)
    probabilities, groups = class_probabilities(voting, PRIORS), np.arange(500) % 25
    found = coverage_over_splits(probabilities, true, groups, 0.9, splits=3, seed=8)
    generator, held, sizes = np.random.default_rng(8), [], []
    for _ in range(3):
        asked = folds_of(groups, 2, generator) == 1
        known = [(1 - probabilities[i, true[i]], groups[i]) for i in np.flatnonzero(~asked)]
        scores = sorted(score for score, _ in known)
        limit = scores[int(np.ceil((len(scores) + 1) * 0.9)) - 1]
        share = sum(score > limit for score in scores) / len(scores)
        alone = sum(((score > limit) - share) ** 2 for score in scores)
        together = sum(
            sum((score > limit) - share for score, its in known if its == group) ** 2
            for group in range(25)
        )
        effect = max(1, together / alone)
        limit = scores[int(np.ceil((len(scores) + effect) * 0.9)) - 1]
        sets = [{c for c in range(3) if 1 - p[c] <= limit} for p in probabilities[asked]]
        held.append(np.mean([c in some for c, some in zip(true[asked], sets, strict=True)]))
        sizes.append(np.mean([len(some) for some in sets]))
    assert found.coverage == pytest.approx(np.mean(held))
    assert found.error == pytest.approx(np.std(held, ddof=1) / np.sqrt(3))
    assert found.set_size == pytest.approx(np.mean(sizes))


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_patches_of_one_patient_are_no_independent_witnesses(coverage: float) -> None:
    """Of cohorts of forty patients: without the design effect sets hold less than they promise."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), rng.integers(5, 60, 40))
    corrected, naive = [], []
    for _ in range(2000):
        # Half of the variance is the patient's own.
        scores = rng.normal(size=40)[groups] + rng.normal(size=len(groups))
        for held, known in ((corrected, groups), (naive, None)):
            threshold = conformal_threshold(scores, coverage, known)
            assert threshold is not None
            # A patch of a patient not seen is normal with the variance 2.
            held.append((1 + math.erf(threshold / 2)) / 2)
    error = np.std(corrected, ddof=1) / np.sqrt(len(corrected))
    assert -2 * error <= np.mean(corrected) - coverage <= 0.004
    assert np.mean(naive) < coverage - 4 * error


def test_design_effect_is_one_alone_and_the_size_of_patients_who_are_of_one_piece() -> None:
    missed = np.random.default_rng(4).random(200) < 0.3
    assert design_effect(missed, np.arange(200)) == 1
    assert design_effect(np.repeat(missed, 7), np.repeat(np.arange(200), 7)) == pytest.approx(7)
    assert design_effect(np.zeros(5, bool), np.arange(5)) == 1
    scores = np.random.default_rng(5).random(200)
    assert conformal_threshold(scores, 0.9, np.arange(200)) == conformal_threshold(scores, 0.9)


def test_quantile_is_corrected_for_the_query_itself() -> None:
    scores = np.arange(1, 20) / 20  # nineteen: the query is the twentieth
    assert conformal_threshold(scores, 0.95) == 0.95
    assert conformal_threshold(scores, 0.9) == 0.9
    assert conformal_threshold(scores, 0.951) is None
    assert conformal_threshold(np.zeros(0), 0.5) is None


def test_a_class_that_the_archive_lacks_is_in_no_set() -> None:
    probabilities = np.array([[0.7, 0.3], [0.6, 0.4]])
    scores = nonconformity(probabilities, np.array([1, -1]))
    np.testing.assert_allclose(scores, [0.7, np.inf])
    assert conformal_threshold(scores, 0.6) is None
    unknown = np.where(np.arange(40) < 4, -1, 0)
    found = coverage_over_splits(np.tile([0.7, 0.3], (40, 1)), unknown, np.arange(40), 0.95)
    assert found.set_size == 2
    assert found.coverage == pytest.approx(0.9, abs=0.05)
