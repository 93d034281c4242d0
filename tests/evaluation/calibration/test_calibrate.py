from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss as sklearn_log_loss

from patchknn.archive.calibration import ISOTONIC, TEMPERATURE
from patchknn.evaluation.calibration.calibrate import (
    fit,
    fit_and_judge,
    fit_isotonic,
    fit_temperature,
    log_loss,
)
from patchknn.search.calibration import calibrated_confidences, of_prediction, tempered
from patchknn.search.class_scores import Voting, class_probabilities, class_scores

Draw = Callable[..., tuple[Voting, np.ndarray]]
PRIORS = np.array([0.5, 0.3, 0.2])


def test_log_loss_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    confidence, correct = generator.random(200), generator.random(200) < 0.5
    assert log_loss(confidence, correct) == pytest.approx(sklearn_log_loss(correct, confidence))


def test_temperature_is_that_of_scipys_minimum(drawn_votes: Draw) -> None:
    voting, true = drawn_votes(3, 800)
    correct = voting.predictions == true
    probabilities = class_probabilities(voting, PRIORS)

    def loss(scale: float) -> float:
        found = tempered(probabilities, np.exp(scale))
        return log_loss(of_prediction(found, voting), correct)

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-6})
    fitted = fit_temperature(voting, correct, PRIORS)
    assert fitted.temperature is not None
    assert np.log(fitted.temperature) == pytest.approx(best.x, abs=2e-3)
    assert loss(np.log(fitted.temperature)) <= loss(0.0)


def test_isotonic_of_few_confidences_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    weighted = generator.integers(0, 21, 3000) / 20
    correct = generator.random(3000) < weighted**2
    knots = np.array(fit_isotonic(weighted, correct).knots)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(weighted, correct).predict(weighted)
    limit = 1 / 3002
    np.testing.assert_allclose(
        np.interp(weighted, *knots.T), np.clip(oracle, limit, 1 - limit), atol=1e-12
    )


def test_isotonic_is_never_quite_sure() -> None:
    knots = fit_isotonic(np.array([0.2, 0.4, 0.9]), np.array([False, True, True])).knots
    assert [y for _, y in knots] == [pytest.approx(0.2), pytest.approx(0.8), pytest.approx(0.8)]


def test_held_out_figures_are_those_of_a_loop_over_the_folds(drawn_votes: Draw) -> None:
    voting, true = drawn_votes(5, 600)
    correct, groups = voting.predictions == true, np.arange(600) // 20
    found = fit_and_judge(voting, correct, PRIORS, groups, folds=30)
    judged = np.zeros(600)
    for group in range(30):  # as many folds as groups: which group is in which does not matter
        mine = groups == group
        fitted = fit(ISOTONIC, voting.select(~mine), correct[~mine], PRIORS)
        judged[mine] = calibrated_confidences(fitted, voting.select(mine), PRIORS)
    assert found.held_out[ISOTONIC]["brier"] == pytest.approx(np.mean((judged - correct) ** 2))
    weighted = of_prediction(class_scores(voting, 3), voting)
    assert found.held_out["weighted_confidence"]["brier"] == pytest.approx(
        np.mean((weighted - correct) ** 2)
    )
    shares = (voting.labels == voting.predictions[:, None]).mean(axis=1)
    assert found.held_out["confidence"]["brier"] == pytest.approx(np.mean((shares - correct) ** 2))


def test_thresholds_are_those_of_the_held_out_confidences(drawn_votes: Draw) -> None:
    voting, true = drawn_votes(6, 900)
    correct, groups = voting.predictions == true, np.arange(900) // 30
    found = fit_and_judge(voting, correct, PRIORS, groups, folds=30)
    judged = np.zeros(900)
    for group in range(30):
        mine = groups == group
        fitted = fit(found.mapping.method, voting.select(~mine), correct[~mine], PRIORS)
        judged[mine] = calibrated_confidences(fitted, voting.select(mine), PRIORS)
    told = found.accuracy_at["0.9"]
    assert told is not None
    answered = judged >= told["threshold"]
    assert told["accuracy"] == pytest.approx(correct[answered].mean())
    assert told["accuracy"] >= 0.9
    assert told["coverage"] == pytest.approx(answered.mean())


@pytest.mark.parametrize("seed", range(3))
def test_calibration_helps_on_patients_not_seen(drawn_votes: Draw, seed: int) -> None:
    voting, true = drawn_votes(seed, 2000)
    correct = voting.predictions == true
    found = fit_and_judge(voting, correct, PRIORS, np.arange(2000) // 50, seed=seed)
    before, after = (found.held_out[n] for n in ("confidence", found.mapping.method))
    assert after["brier"] < before["brier"]
    assert after["ece"] < before["ece"]
    methods = {method: found.held_out[method]["brier"] for method in (TEMPERATURE, ISOTONIC)}
    assert methods[found.mapping.method] == min(methods.values())


def test_who_has_no_prediction_is_sure_of_nothing(drawn_votes: Draw) -> None:
    voting, true = drawn_votes(1, 300)
    voting.labels[:10], voting.predictions[:10] = -1, -1
    correct = voting.predictions == true
    found = fit_and_judge(voting, correct, PRIORS, np.arange(300) % 7)
    assert np.isnan(calibrated_confidences(found.mapping, voting, PRIORS)[:10]).all()
    assert 0 < found.held_out["temperature"]["brier"] < 1
