import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from patchknn.evaluation.figures.paired import compare, sign_flip_p
from patchknn.evaluation.outcomes import Outcome, Outcomes


def outcomes(right: dict[str, str], patients: dict[str, str]) -> Outcomes:
    """A query for each letter of ``right``: its name, and a vote that is A (right) or B."""
    return Outcomes.of(
        [
            Outcome(name, "A", vote, 1.0, (vote, "A"), patient=patients[name])
            for name, vote in right.items()
        ],
        2,
    )


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_p_is_exact_for_few_patients(differences: list[int]) -> None:
    values = np.array(differences, np.float64)
    seen = abs(values.sum())
    patterns = list(itertools.product([-1, 1], repeat=len(values)))
    extreme = sum(abs(float(np.dot(pattern, values))) >= seen for pattern in patterns)
    assert sign_flip_p(values) == pytest.approx(extreme / len(patterns))


def test_p_agrees_with_scipy() -> None:
    values = np.random.default_rng(5).normal(0.4, 1, 11)
    expected = permutation_test(
        (values,),
        lambda sample, axis: sample.sum(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip_p(values) == pytest.approx(expected.pvalue)


def test_p_of_many_patients_is_near_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(5).normal(0.12, 1, 400)
    from scipy.stats import norm

    z = abs(values.sum()) / np.sqrt((values**2).sum())
    expected = 2 * norm.sf(z)
    assert 0.001 < expected < 0.2
    assert sign_flip_p(values) == pytest.approx(expected, abs=4 * (expected / 10_000) ** 0.5 + 1e-3)


def test_methods_are_paired_by_the_names_of_their_queries() -> None:
    patients = {"a": "P1", "b": "P1", "c": "P2", "d": "P3", "e": "P3"}
    first = outcomes(dict(zip("abcd", "BBAB", strict=True)), patients)
    other = outcomes(dict(zip("edcba", "AAABA", strict=True)), patients)
    found = compare(first, other, "patchknn", 200, 0)
    assert found is not None
    # a: B to A, b: B to B, c: A to A, d: B to A; e is asked of the second alone.
    assert (found.n, found.patients) == (4, 3)
    assert found.accuracy.difference == 0.5
    assert found.accuracy.p == 0.5  # P1 and P3 differ, 2 patterns of 4 are as far from 0
    assert found.precision_at_k.difference == pytest.approx(0.25)
    low, high = found.accuracy.interval or (1, 0)
    assert 0 <= low < 0.5 < high <= 1
    assert compare(first, first.select(np.array([], int)), "patchknn", 200, 0) is None


def test_a_method_against_itself() -> None:
    patients = {"a": "P1", "b": "P2"}
    same = outcomes({"a": "A", "b": "B"}, patients)
    found = compare(same, same, "m", 50, 0)
    assert found is not None
    assert found.as_json() == {
        "against": "m",
        "n": 2,
        "patients": 2,
        "difference": 0.0,
        "interval": [0.0, 0.0],
        "p": 1.0,
        "precision_at_k": {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0},
    }
