"""Every loss on every awkward batch, against loops over plain Python numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from patchknn.losses.bank import FeatureBank
from patchknn.losses.deep_knn import deep_knn
from patchknn.losses.multitask import MultitaskWeights, multitask
from patchknn.losses.terms import LossTerms
from patchknn.losses.triplet import triplet

_DIM = 6
_GAMMA = _DIM / 2
_ALPHA, _MARGIN = 0.7, 0.4


def _ranked(points, classes, a):
    """Rows of the anchor's class and all others, each nearest first."""
    others = [i for i in range(len(points)) if i != a]
    others.sort(key=lambda i: math.dist(points[a], points[i]))
    return (
        [i for i in others if classes[i] == classes[a]],
        [i for i in others if classes[i] != classes[a]],
    )


def _mean(values):
    return math.fsum(values) / max(len(values), 1)


def _paired(points, classes):
    """Paper A's triplets: the farthest positive with the nearest negative, and so on inwards."""
    for a in range(len(points)):
        same, other = _ranked(points, classes, a)
        same.sort(key=lambda p: -math.dist(points[a], points[p]))
        yield from ((a, p, n) for p, n in zip(same, other, strict=False))


def _cosine(x, y):
    norms = math.hypot(*x) * math.hypot(*y)
    cosine = math.fsum(i * j for i, j in zip(x, y, strict=True)) / norms if norms else 0.0
    return len(x) / 2 * (1 - cosine)


def _ratio(points, classes):
    values = []
    for a, p, n in _paired(points, classes):
        gap = math.dist(points[a], points[p]) - math.dist(points[a], points[n])
        values.append(2 * (1 / (1 + math.exp(min(-gap, 700)))) ** 2)
    return _mean(values)


def _cauchy(distance):
    def loss(points, classes):
        values = []
        for a, p, n in _paired(points, classes):
            negative = max(distance(points[a], points[n]), 1e-6)
            positive = distance(points[a], points[p])
            values.append(math.log1p(positive / _GAMMA) + math.log1p(_GAMMA / negative))
        return _mean(values)

    return loss


def _quantization(side):
    def loss(points, classes):
        def term(row):
            return math.log1p(math.dist([side(v) for v in row], [1.0] * len(row)) / _GAMMA)

        return _mean([sum(term(points[i]) for i in apn) for apn in _paired(points, classes)])

    return loss


def _deep_knn(points, classes):
    values = []
    for a in range(len(points)):
        same, other = _ranked(points, classes, a)
        for y in same[:5]:
            for z in other[:5]:
                gap = math.dist(points[a], points[y]) - math.dist(points[a], points[z])
                values.append(max(0.0, gap + _ALPHA))
    return _mean(values)


def _soft(gap):
    return max(gap, 0.0) + math.log1p(math.exp(-abs(gap)))


def _hard(gap):
    return max(gap + _MARGIN, 0.0)


def _triplet(mining, hinge):
    def loss(points, classes):
        values = []
        for a in range(len(points)):
            same, other = _ranked(points, classes, a)
            if not other:
                continue
            to = [math.dist(points[a], point) for point in points]
            if mining == "batch-hard":
                same, mined = same[-1:], dict.fromkeys(same, other[:1])
            elif mining == "all":
                mined = dict.fromkeys(same, other)
            else:
                mined = {p: [n for n in other if to[n] > to[p]][:1] for p in same}
                if mining == "easy-positive":
                    same = same[:1]
                else:
                    mined = {p: found or other[-1:] for p, found in mined.items()}
            values += [hinge(to[p] - to[n]) for p in same for n in mined[p]]
        return _mean(values)

    return loss


def _part(*weights, **options):
    """Paper A's loss, its parts weighed, with nothing for the classifier to say."""

    def loss(rows, labels):
        logits = torch.zeros(len(rows), 20, dtype=rows.dtype)
        return multitask(rows, logits, labels, weights=MultitaskWeights(*weights), **options)

    return loss


def _banked(rows, labels):
    numbers = torch.arange(len(labels))
    bank = FeatureBank(rows.detach(), labels, numbers)
    return deep_knn(rows, labels, alpha=_ALPHA, bank=bank, numbers=numbers)


@dataclass(frozen=True)
class Case:
    """A loss of rows and labels, and what its value must be."""

    loss: Callable[[torch.Tensor, torch.Tensor], LossTerms]
    literal: Callable[[list[list[float]], list[int]], float]


def _of_triplet(mining, hinge):
    margin = _MARGIN if hinge is _hard else None
    return Case(
        lambda rows, labels: triplet(rows, labels, mining=mining, margin=margin),
        _triplet(mining, hinge),
    )


CASES = {
    "triplet ratio": Case(_part(1, 0, 0, 0), _ratio),
    "Cauchy": Case(_part(0, 1, 0, 0), _cauchy(math.dist)),
    "Cauchy, cosine": Case(_part(0, 1, 0, 0, distance="cosine"), _cauchy(_cosine)),
    "quantization": Case(_part(0, 0, 1, 0), _quantization(abs)),
    "literal quantization": Case(
        _part(0, 0, 1, 0, quantization="literal"), _quantization(lambda v: v)
    ),
    "deep kNN": Case(lambda rows, labels: deep_knn(rows, labels, alpha=_ALPHA), _deep_knn),
    "deep kNN, bank": Case(_banked, _deep_knn),
    **{
        f"{mining}, {hinge.__name__[1:]}": _of_triplet(mining, hinge)
        for mining in ("batch-hard", "semi-hard", "easy-positive", "all")
        for hinge in (_hard, _soft)
    },
}


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _labels(*sizes):
    return np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))


def _by_class(labels, scale):
    """Classes drawn together to points that are ``scale`` apart."""
    return _normal(20, _DIM, seed=2)[labels] * scale


BATCHES = {
    "usual": (_normal(16, _DIM), _labels(5, 4, 7)),
    "a thousand apart": (_normal(16, _DIM) * 1e3, _labels(5, 4, 7)),
    "a millionth apart": (_normal(16, _DIM) * 1e-6, _labels(5, 4, 7)),
    "identical rows": (np.ones((9, _DIM)), _labels(3, 3, 3)),
    "zero rows": (np.zeros((6, _DIM)), _labels(3, 3)),
    "duplicates": (np.repeat(_normal(4, _DIM), 4, axis=0), _labels(6, 5, 5)),
    "classes drawn to points": (_by_class(_labels(5, 4, 7), 1.0), _labels(5, 4, 7)),
    "points a thousand apart": (_by_class(_labels(5, 4, 7), 1e3), _labels(5, 4, 7)),
    "saturated": (np.where(np.arange(10) % 2, 500.0, 0.0)[:, None] * np.ones(_DIM), _labels(5, 5)),
    "fewer than K": (_normal(12, _DIM), _labels(2, 3, 7)),
    "a single row of a class": (_normal(8, _DIM), _labels(1, 7)),
    "two rows": (_normal(2, _DIM), np.array([0, 0])),
    "one class": (_normal(7, _DIM), _labels(7)),
    "a class for each row": (_normal(5, _DIM), _labels(1, 1, 1, 1, 1)),
    "one row": (_normal(1, _DIM), _labels(1)),
}


def _tensors(batch, dtype):
    rows, labels = BATCHES[batch]
    return torch.tensor(rows).to(dtype).requires_grad_(), torch.tensor(labels)


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [
        (torch.float64, 1e-10),
        (torch.float32, 1e-5),
        (torch.bfloat16, 1e-5),
        (torch.float16, 1e-5),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name, batch, dtype, rtol):
    case = CASES[name]
    rows, labels = _tensors(batch, dtype)
    terms = case.loss(rows, labels)
    expected = case.literal(rows.detach().double().tolist(), labels.tolist())
    assert terms.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # exp(−45) of a gap between distances of 1000 holds what float32 rounds off in these.
    within = 1e-12 if dtype == torch.float64 else 1e-6
    assert terms.total.item() == pytest.approx(expected, rel=rtol, abs=within)
    terms.total.backward()
    assert rows.grad.dtype == dtype
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_float32_are_those_of_float64(name, batch):
    narrow, labels = _tensors(batch, torch.float32)
    wide = narrow.detach().double().requires_grad_()
    for rows in (narrow, wide):
        CASES[name].loss(rows, labels).total.backward()
    # What a distance of 1000 rounds off, 6e-5, is all that is left of some soft hinges.
    within = max(1e-5 * wide.grad.abs().max().item(), 1e-7)
    torch.testing.assert_close(narrow.grad, wide.grad.float(), rtol=1e-3, atol=within)


@pytest.mark.parametrize("name", CASES)
def test_no_triplet_is_zero_with_a_graph_and_counts_none(name):
    for batch in ("one class", "a class for each row", "one row", "two rows"):
        rows, labels = _tensors(batch, torch.float32)
        terms = CASES[name].loss(rows, labels)
        assert terms.total == 0
        assert terms.triplets == 0
        assert terms.active == 0
        terms.total.backward()
        assert (rows.grad == 0).all()


def test_saturated_triplets_have_no_gradient_left_and_are_counted():
    rows, labels = _tensors("saturated", torch.float32)
    terms = CASES["triplet ratio"].loss(rows, labels)
    points = rows.detach().tolist()
    gaps = [
        math.dist(points[a], points[p]) - math.dist(points[a], points[n])
        for a, p, n in _paired(points, labels.tolist())
    ]
    assert terms.saturated == sum(gap > 6.5 for gap in gaps) > 0
    assert terms.active == sum(gap > 0 for gap in gaps)
    terms.total.backward()
    assert (rows.grad == 0).all()
