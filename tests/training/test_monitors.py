"""Bit statistics, spread, and the sentence that says codes or features have collapsed."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.training.monitors import bit_statistics, feature_spread, health_warning


def test_balanced_and_stuck_bits():
    bits = np.zeros((1000, 8), bool)
    bits[::2, 0] = True  # balanced: one bit of entropy
    bits[::4, 1] = True  # a quarter
    bits[:5, 2] = True  # 0.5 %: stuck; the other five never move
    figures = bit_statistics(np.packbits(bits, axis=1))
    quarter = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    rare = -(0.005 * np.log2(0.005) + 0.995 * np.log2(0.995))
    assert figures["bit_entropy"] == pytest.approx((1 + quarter + rare) / 8)
    assert figures["stuck_bits"] == 6 / 8


def test_spread_by_hand():
    assert feature_spread(np.zeros((3, 2), np.float32)) == 0
    assert feature_spread(np.full((5, 3), 7.0, np.float32)) == pytest.approx(0, abs=1e-7)
    assert feature_spread(np.array([[1.0, 0.0], [-1.0, 0.0]])) == 1
    # Mean (1, 0); deviations of length 1 and 1; lengths √2 and √2.
    assert feature_spread(np.array([[1.0, 1.0], [1.0, -1.0]])) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"bit_entropy": 0.9, "stuck_bits": 0.0, "ball_2": 10.0}, None),
        ({"bit_entropy": 0.5, "stuck_bits": 0.9}, "90% of the bits"),
        ({"bit_entropy": 0.2, "stuck_bits": 0.1}, "0.20 of 1 bit"),
        ({"bit_entropy": 0.9, "stuck_bits": 0.0, "ball_2": 80.0}, "radius 2 holds 80%"),
        ({"bit_entropy": 0.9, "stuck_bits": 0.0, "saturated_triplets": 0.4}, "40% of the triplets"),
        ({"bit_entropy": 0.9, "stuck_bits": 0.0, "empty_2": 0.6}, "60% of the validation images"),
        ({"bit_entropy": 0.9, "stuck_bits": 0.0, "feature_spread": 0.7}, None),
        ({"bit_entropy": 0.9, "stuck_bits": 0.0, "feature_spread": 0.01}, "1.0% of their length"),
    ],
)
def test_a_collapse_is_one_sentence(figures, word):
    warning = health_warning(figures, 100, loss="multitask", learnt=True)
    assert warning is None if word is None else word in warning


def test_fitted_codes_may_lie_far_apart_without_a_warning():
    figures = {"bit_entropy": 0.99, "stuck_bits": 0.0, "empty_2": 0.9}
    assert health_warning(figures, 100, loss="deep-knn", learnt=False) is None


def test_only_a_loss_that_does_not_learn_codes_is_told_to_take_one_that_does():
    figures = {"bit_entropy": 0.2, "stuck_bits": 0.1}
    assert "--loss multitask" not in health_warning(figures, 100, loss="multitask", learnt=True)
    assert "--loss multitask" in health_warning(figures, 100, loss="deep-knn", learnt=False)


@pytest.mark.parametrize(("loss", "has_weight"), [("multitask", True), ("deep-knn", False)])
def test_scattered_codes_are_blamed_on_weights_that_the_loss_has(loss, has_weight):
    figures = {"bit_entropy": 0.9, "stuck_bits": 0.0, "empty_2": 0.6}
    assert ("--w-c" in health_warning(figures, 100, loss=loss, learnt=True)) == has_weight


@pytest.mark.parametrize(
    ("loss", "part", "option"),
    [("deep-knn", "deep_knn", "--alpha"), ("triplet", "triplet", "--margin")],
)
def test_a_loss_of_nothing_is_said_with_the_option_that_asks_for_more(loss, part, option):
    low = {"bit_entropy": 0.2, "stuck_bits": 0.0, "triplets": 40.0}  # imbalanced, for one thing
    warning = health_warning({**low, part: 0.0}, 100, loss=loss, learnt=False)
    assert f"the {loss} loss is 0" in warning
    assert f"raise {option}" in warning
    for figures in ({**low, part: 1e-6}, {**low, part: 0.0, "triplets": 0.0}):
        assert "loss is 0" not in health_warning(figures, 100, loss=loss, learnt=False)
    both = health_warning({**low, "triplet": 0.0}, 100, loss="multitask", learnt=True)
    assert "loss is 0" not in both
