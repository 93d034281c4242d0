import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.search.class_scores import Voting, class_probabilities, class_scores, vote_weights
from patchknn.search.votes import tally, weights

NAMES = ("A", "B", "C")
distance = st.floats(0, 1e3)
neighbour = st.tuples(st.sampled_from([*NAMES, None]), distance)
asked = st.tuples(st.lists(neighbour, max_size=5), st.sampled_from([0.0, 1e-3, 1.0, 7.5]))


def voting_of(queries: list[tuple[list[tuple[str | None, float]], float]], k: int = 5) -> Voting:
    labels = np.full((len(queries), k), -2)
    distances = np.full((len(queries), k), np.nan)
    predictions = np.full(len(queries), -1)
    for number, (neighbours, norm) in enumerate(queries):
        for rank, (name, l2) in enumerate(neighbours):
            labels[number, rank] = -1 if name is None else NAMES.index(name)
            distances[number, rank] = l2
        won = tally([n for n, _ in neighbours], [d for _, d in neighbours], norm).prediction
        if won is not None:
            predictions[number] = NAMES.index(won)
    return Voting(labels, distances, np.array([norm for _, norm in queries]), predictions)


@given(st.lists(asked, min_size=1, max_size=6))
@settings(max_examples=150)
def test_scores_are_what_the_search_tallies(
    queries: list[tuple[list[tuple[str | None, float]], float]],
) -> None:
    voting = voting_of(queries)
    scores = class_scores(voting, len(NAMES))
    for row, (neighbours, norm) in enumerate(queries):
        vote = tally([n for n, _ in neighbours], [d for _, d in neighbours], norm)
        assert voting.votes[row] == vote.n_votes
        for number, name in enumerate(NAMES):
            own = [d for other, d in neighbours if other == name]
            share = sum(weights(own, norm)) / max(vote.n_votes, 1)
            assert scores[row, number] == pytest.approx(share, rel=1e-12)
            if name == vote.prediction:
                assert scores[row, number] == pytest.approx(vote.weighted_confidence, rel=1e-12)


@given(st.lists(asked, min_size=1, max_size=6))
@settings(max_examples=80)
def test_probabilities_add_up_and_leave_no_class_out(
    queries: list[tuple[list[tuple[str | None, float]], float]],
) -> None:
    priors = np.array([0.6, 0.3, 0.1])
    found = class_probabilities(voting_of(queries), priors)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found > 0).all()


def test_probabilities_of_a_worked_case() -> None:
    """Two votes A at distance 0, one B as far as the query is long, which weighs a half."""
    priors = np.array([0.5, 0.25, 0.25])
    near = [("A", 0.0), ("A", 0.0), ("B", 2.0), (None, 2.5)]
    nobody, far = [], [("C", 1e200)]
    found = class_probabilities(voting_of([(near, 2.0), (nobody, 2.0), (far, 2.0)]), priors)
    rest = 4 - 2.5
    np.testing.assert_allclose(found[0], [(2 + rest / 2) / 4, (0.5 + rest / 4) / 4, rest / 16])
    np.testing.assert_allclose(found[1:], [priors, priors])


def test_who_is_missing_weighs_nothing() -> None:
    distances = np.array([[0.0, 3.0, np.nan]])
    np.testing.assert_array_equal(vote_weights(distances, np.array([3.0])), [[1, 0.5, 0]])
    np.testing.assert_array_equal(vote_weights(distances, np.array([0.0])), [[1, 0, 0]])
