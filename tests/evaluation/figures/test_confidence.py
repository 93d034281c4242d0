import itertools
import json

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from patchknn.evaluation.figures import metrics
from patchknn.evaluation.figures.confidence import (
    Batch,
    batches,
    brier,
    confidence_figures,
    confidence_tables,
    ece_bias,
    figures_of,
)
from patchknn.evaluation.outcomes import Outcome, Outcomes


@pytest.fixture
def true_to_its_word() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    confidence = generator.integers(0, 11, 400) / 10
    return confidence, generator.random(400) < confidence


def test_brier_agrees_with_scikit_learn(true_to_its_word: tuple[np.ndarray, np.ndarray]) -> None:
    confidence, correct = true_to_its_word
    assert brier(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence))


def test_reliability_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    confidence = generator.random(500)
    correct = generator.random(500) < confidence**2
    bins = [entry for entry in metrics.confidence_bins(confidence, correct) if entry.n]
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose([entry.accuracy for entry in bins], accuracy)
    np.testing.assert_allclose([entry.confidence for entry in bins], mean)


def test_batches_of_equals_are_the_mean_over_all_their_orders() -> None:
    confidence = np.array([0.5, 0.9, 0.5, 0.2, 0.5])
    correct = np.array([True, True, False, False, True])
    expected = []
    for order in itertools.permutations(range(5)):
        some = np.array(order)
        stable = some[np.argsort(confidence[some], kind="stable")]
        expected.append([correct[stable[:2]].mean(), correct[stable[2:4]].mean()])
    found = batches(confidence, correct, size=2)
    assert [batch.n for batch in found] == [2, 2, 1]
    np.testing.assert_allclose([b.accuracy for b in found[:2]], np.mean(expected, axis=0))
    assert found[2] == Batch(1, 0.9, 1.0)


def test_a_small_rest_joins_the_last_batch() -> None:
    confidence = np.linspace(0, 1, 124)
    assert [batch.n for batch in batches(confidence, confidence > 0.5)] == [50, 74]
    assert [batch.n for batch in batches(confidence[:20], confidence[:20] > 0)] == [20]


def test_bias_is_the_mean_ece_of_confidences_that_are_true() -> None:
    confidence = np.random.default_rng(7).integers(1, 11, 150) / 10
    eces = []
    for seed in range(1000):
        drawn = np.random.default_rng(100 + seed).random(150) < confidence
        eces.append(metrics.expected_calibration_error(confidence, drawn))
    error = np.std(eces) / np.sqrt(200)  # of the 200 draws that the bias is made of
    assert ece_bias(confidence) == pytest.approx(np.mean(eces), abs=4 * error)


def test_bias_of_one_bin_is_the_mean_deviation_of_its_accuracy() -> None:
    """Two queries of confidence 1/2: both right or both wrong half the time, 1/2 away."""
    assert ece_bias(np.array([0.5, 0.5])) == pytest.approx(0.25, abs=0.04)
    assert ece_bias(np.ones(9)) == 0


def test_true_confidences_have_an_ece_of_about_the_bias(
    true_to_its_word: tuple[np.ndarray, np.ndarray],
) -> None:
    found = figures_of(*true_to_its_word)
    assert found["ece"] == pytest.approx(found["ece_bias"], abs=0.02)
    assert found["ece_debiased"] <= 0.02
    assert found["batch_pearson"] > 0.95
    assert found["accuracy_at"]["0.9"]["accuracy"] >= 0.9


def outcomes(order: np.ndarray) -> Outcomes:
    generator = np.random.default_rng(3)
    many = []
    for number in range(120):
        votes = int(generator.integers(4, 11))
        right = generator.random() < votes / 10
        many.append(
            Outcome(
                f"q{number}",
                "A",
                "A" if right else "B",
                votes / 10,
                ("A",) * 10,
                weighted_confidence=votes / 10 * 0.9,
                classifier="A",
                probability=0.7 if number % 2 else None,
            )
        )
    return Outcomes.of([many[number] for number in order], 10)


def test_figures_and_tables_do_not_hang_on_the_order_of_the_queries() -> None:
    first, second = outcomes(np.arange(120)), outcomes(np.arange(120)[::-1])
    figures = confidence_figures(first)
    assert list(figures) == ["confidence", "weighted_confidence", "classifier"]
    assert figures["classifier"]["n"] == 60
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    for name, entry in confidence_figures(second).items():
        assert entry.pop("accuracy_at") == figures[name].pop("accuracy_at")
        assert entry == pytest.approx(figures[name]), name
    tables = confidence_tables(first)
    assert [row["n"] for row in tables["batches"] if row["score"] == "confidence"] == [50, 70]
    assert {row["score"] for row in tables["reliability"]} == set(figures)
    assert tables["risk_coverage"][-1]["coverage"] == 1


def test_without_queries_there_are_no_figures() -> None:
    found = figures_of(np.zeros(0), np.zeros(0, bool))
    assert all(value in (None, 0) for name, value in found.items() if name != "accuracy_at")
    assert set(found["accuracy_at"].values()) == {None}
