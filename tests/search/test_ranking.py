"""Distances that hang on nothing but their two vectors, and an order that is total."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming.exact import l2_distances
from patchknn.search.ranking import nearest, place_in_group


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("dim", [1, 2, 7, 8, 9, 127, 128, 129, 512, 1000])
def test_a_distance_is_the_same_bits_alone_and_among_many(rng, dtype, dim):
    features = rng.normal(size=(3000, dim)).astype(dtype)
    query = rng.normal(size=dim).astype(dtype)
    together = l2_distances(features, query)
    rows = rng.permutation(3000)[:700]
    assert (l2_distances(features, query, rows) == together[rows]).all()
    for row in range(0, 3000, 97):
        assert l2_distances(features[row : row + 1], query)[0] == together[row]
    unaligned = np.frombuffer(b"\0" + features.tobytes(), np.uint8)[1:].view(dtype)
    assert (l2_distances(unaligned.reshape(features.shape), query) == together).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_distances_are_those_of_exact_arithmetic(rng, dtype):
    features = (rng.normal(size=(20, 300)) * 10.0 ** rng.integers(-3, 3, (20, 1))).astype(dtype)
    query = features[0] * np.array(0.5, dtype)
    exact = [
        math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(row, query.tolist(), strict=True)))
        for row in features.tolist()
    ]
    np.testing.assert_allclose(l2_distances(features, query), exact, rtol=1e-14)


def test_the_largest_float32_features_do_not_overflow():
    features = np.full((2, 4), np.finfo(np.float32).max, np.float32)
    assert l2_distances(features, -features[0])[0] == pytest.approx(
        4 * float(np.finfo(np.float32).max)
    )


@given(
    st.lists(st.integers(0, 4), max_size=40),
    st.integers(1, 50),
    st.none() | st.integers(1, 3),
    st.randoms(),
)
def test_nearest_is_a_greedy_walk_down_the_sorted_list(values, k, per_group, random):
    names = [random.choice("abc") + str(position) for position in range(len(values))]
    groups = np.array([random.randrange(3) for _ in values], np.int64)
    walk, taken = sorted(range(len(values)), key=lambda i: (values[i], names[i])), []
    for position in walk:
        group = [other for other in taken if groups[other] == groups[position]]
        if per_group is None or len(group) < per_group:
            taken.append(position)
    found = nearest(
        np.array(values, np.float64),
        k,
        lambda tied: [names[position] for position in tied],
        None if per_group is None else lambda some: groups[some],
        per_group or 0,
    )
    assert found.tolist() == taken[:k]


@given(
    st.one_of(
        st.lists(st.integers(0, 5), max_size=30),
        st.lists(st.sampled_from([-1, 0, 1, 65_535, 65_536, 65_537, 1 << 40]), max_size=30),
    )
)
def test_place_in_group_counts_earlier_members(groups):
    expected = [groups[:position].count(group) for position, group in enumerate(groups)]
    assert place_in_group(np.array(groups, np.int64)).tolist() == expected
