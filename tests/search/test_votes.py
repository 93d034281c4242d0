"""The vote, its ties and its two confidences, by hand."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchknn.search.votes import Tally, tally, weights


def test_most_votes_win_and_the_unlabelled_cast_none():
    vote = tally(["b", None, "a", "b", None], [1, 1, 1, 2, 0], 1.0)
    assert (vote.prediction, vote.votes, vote.n_votes) == ("b", {"b": 2, "a": 1}, 3)
    assert vote.confidence == pytest.approx(2 / 3)


def test_a_tie_goes_to_the_smaller_mean_distance_then_to_the_name():
    assert tally(["b", "a", "a", "b"], [1.0, 1.5, 1.5, 4.0], 1.0).prediction == "a"
    assert tally(["b", "a", "a", "b"], [1.0, 2.0, 2.0, 1.0], 1.0).prediction == "b"
    assert tally(["b", "a"], [3.0, 3.0], 1.0).prediction == "a"
    assert list(tally(["b", "a", "c", "a"], [3.0, 3.0, 0.1, 9.0], 1.0).votes) == ["a", "c", "b"]


def test_no_votes_make_no_prediction():
    assert tally([None, None], [0.0, 1.0], 1.0) == Tally(None, None, None, {})
    assert tally([], [], 1.0).confidence is None


def test_weights_by_hand():
    # 1 / (1 + (d / 2)²).
    assert weights([0.0, 2.0, 4.0], 2.0) == pytest.approx([1.0, 0.5, 0.2], rel=1e-15)
    vote = tally(["a", "b", None, "b"], [0.0, 2.0, 0.1, 4.0], 2.0)
    assert vote.prediction == "b"
    assert vote.weighted_confidence == pytest.approx(0.7 / 3)


def test_agreement_from_afar_is_less_sure_than_from_near():
    near, far = (tally(["a"] * 10, [d] * 10, 3.0) for d in (0.5, 5.0))
    assert near.confidence == far.confidence == 1
    assert near.weighted_confidence > 0.9
    assert far.weighted_confidence < 0.3


def test_lengths_and_distances_of_zero_are_no_special_case():
    assert weights([0.0, 0.0], 1.0) == [1.0, 1.0]
    assert weights([0.0, 1.0], 0.0) == [1.0, 0.0]
    vote = tally(["a", "a", "b"], [0.0, 0.0, 0.0], 0.0)
    assert vote.weighted_confidence == pytest.approx(2 / 3)


@example([("a", 5e-324)], 5e-324)
@example([("a", 1e300), ("b", 5e-324)], 5e-324)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e300)), min_size=1),
    st.floats(0, 1e300),
)
def test_the_weighted_confidence_is_no_larger_and_does_not_hang_on_the_unit(ballots, norm):
    labels = [label for label, _ in ballots]
    distances = [distance for _, distance in ballots]
    vote = tally(labels, distances, norm)
    assert 0 < vote.confidence <= 1
    assert 0 <= vote.weighted_confidence <= vote.confidence
    assert sum(vote.votes.values()) == len(ballots)
    if max(distances) == 0:
        assert vote.weighted_confidence == vote.confidence
    doubled = tally(labels, [2 * distance for distance in distances], 2 * norm)
    assert doubled.weighted_confidence == pytest.approx(vote.weighted_confidence, rel=1e-9)
