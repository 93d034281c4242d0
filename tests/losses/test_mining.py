"""Who meets whom in a batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import (
    batch_hard_triplets,
    class_neighbours,
    easy_positive_triplets,
    one_to_one_triplets,
    semi_hard_triplets,
)


@pytest.mark.parametrize(("classes", "per_class"), [(9, 10), (2, 2), (4, 8), (3, 5)])
def test_a_balanced_batch_gives_n_k_k_minus_1_triplets(make_batch, classes, per_class):
    rows, labels = make_batch((per_class,) * classes)
    triplets = one_to_one_triplets(euclidean_distances(rows), labels).indices()
    assert len(triplets) == classes * per_class * (per_class - 1)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (1, 3, 6), (5, 1), (7, 2, 2)])
def test_the_pairing_equals_plain_loops(make_batch, literal_triplets, sizes):
    rows, labels = make_batch(sizes)
    found = one_to_one_triplets(euclidean_distances(rows), labels).indices()
    assert sorted(map(tuple, found.tolist())) == sorted(literal_triplets(rows, labels))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    values=st.lists(st.integers(-2, 2), min_size=12, max_size=12),
)
def test_never_itself_never_the_wrong_class_even_among_duplicates(labels, values):
    rows = torch.tensor(values[: len(labels)], dtype=torch.float64)[:, None]
    classes = torch.tensor(labels)
    distances = euclidean_distances(rows)
    for mined in (
        one_to_one_triplets,
        batch_hard_triplets,
        semi_hard_triplets,
        easy_positive_triplets,
    ):
        for a, p, n in mined(distances, classes).indices().tolist():
            assert a != p
            assert labels[a] == labels[p] != labels[n]
    near, far = class_neighbours(distances, classes, 3, 4)
    for neighbours, same in ((near, True), (far, False)):
        for a, (index, valid) in enumerate(
            zip(neighbours.index.tolist(), neighbours.valid.tolist(), strict=True)
        ):
            chosen = [i for i, ok in zip(index, valid, strict=True) if ok]
            assert len(set(chosen)) == len(chosen)
            assert all(i != a and (labels[i] == labels[a]) is same for i in chosen)
            possible = sum((c == labels[a]) is same for c in labels) - same
            assert len(chosen) == min(possible, 3 if same else 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(6, 6, 6), (1, 9, 4), (12, 2)])
def test_ties_are_taken_in_batch_order(make_batch, literal_triplets, sizes, dtype):
    rows, labels = make_batch(sizes, dim=2, dtype=dtype)
    rows = rows.round()  # a coarse grid: most distances occur several times
    found = one_to_one_triplets(euclidean_distances(rows), labels).indices().tolist()
    assert list(map(tuple, found)) == literal_triplets(rows, labels)
    near, far = class_neighbours(euclidean_distances(rows), labels, 3, 3)
    points, classes = rows.tolist(), labels.tolist()
    for a in range(len(points)):
        ranked = sorted(range(len(points)), key=lambda i: math.dist(points[a], points[i]))
        same = [i for i in ranked if i != a and classes[i] == classes[a]]
        other = [i for i in ranked if classes[i] != classes[a]]
        assert near.index[a][near.valid[a]].tolist() == same[:3]
        assert far.index[a][far.valid[a]].tolist() == other[:3]


def test_class_neighbours_are_the_nearest_by_plain_loops(make_batch):
    rows, labels = make_batch((6, 3, 9))
    near, far = class_neighbours(euclidean_distances(rows), labels, 4, 5)
    points, classes = rows.tolist(), labels.tolist()
    for a in range(len(points)):
        by_distance = sorted(range(len(points)), key=lambda i: math.dist(points[a], points[i]))
        same = [i for i in by_distance if i != a and classes[i] == classes[a]][:4]
        other = [i for i in by_distance if classes[i] != classes[a]][:5]
        assert near.index[a][near.valid[a]].tolist() == same
        assert far.index[a][far.valid[a]].tolist() == other


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_broken_distances_neither_stand_in_for_missing_neighbours_nor_hide(broken):
    distances = torch.full((4, 4), broken)
    labels = torch.tensor([0, 0, 1, 1])
    near, far = class_neighbours(distances, labels, 3, 3)
    assert near.valid.sum(dim=1).tolist() == [1, 1, 1, 1]
    assert far.valid.sum(dim=1).tolist() == [2, 2, 2, 2]


def test_mining_leaves_no_trace_in_the_graph(make_batch):
    rows, labels = make_batch((3, 3))
    rows.requires_grad_()
    triplets = one_to_one_triplets(euclidean_distances(rows), labels)
    assert not triplets.positives.index.requires_grad
