"""Where an answer comes from, against exact sums and finite differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from patchknn.wholeslide.learning.batches import whole
from patchknn.wholeslide.prediction.saliency import most_salient, saliency


def test_of_a_linear_model_the_places_sum_to_the_answer(make_grid, make_model):
    grid, model = make_grid(), make_model("mean", classes=("a", "b", "c"))
    values = saliency(model.network, grid, 2)
    with torch.no_grad():
        found = model.network(*whole(grid))[0]
        bare = model.network.head.bias  # what the mean of the training vectors gives
    margin = [y[2] - (y[0] + y[1]) / 2 for y in (found, bare)]
    assert values.sum() == pytest.approx((margin[0] - margin[1]).item(), abs=1e-5)
    assert (values[~grid.mask] == 0).all()


@pytest.mark.parametrize("model", ["cnn", "max", "mean"])
def test_it_is_the_change_when_a_place_is_made_more_of_what_it_is(make_grid, make_model, model):
    grid, model = make_grid(), make_model(model)
    values = saliency(model.network, grid, 1)
    network, step = model.network.double(), 1e-6
    features, mask = whole(grid)
    features = features.double()
    mean = network.input.mean[:, None]
    rows, columns = np.flatnonzero(grid.mask.any(axis=1)), np.flatnonzero(grid.mask.any(axis=0))
    for row, column in grid.places()[::4].tolist():
        place = (0, slice(None), row - rows[0], column - columns[0])
        margins = []
        for sign in (1, -1):
            changed = features.clone()
            changed[place] += sign * step * (features[place] - mean[:, 0])
            outputs = network(changed, mask)[0]
            margins.append((outputs[1] - outputs[0]).item())
        expected = (margins[0] - margins[1]) / (2 * step)
        assert values[row, column] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_attention_is_that_of_the_network(make_grid, make_model):
    grid, model = make_grid(), make_model("mil")
    values = saliency(model.network, grid, 0)
    assert values.sum() == pytest.approx(1)
    assert ((values > 0) == grid.mask).all()


def test_most_salient_places_come_in_order_and_equal_ones_row_by_row():
    values = np.array([[0.5, 0.9, 0.0], [0.9, -1.0, 0.5]])
    mask = np.array([[True, True, True], [True, True, False]])
    assert most_salient(values, mask, 9).tolist() == [[0, 1], [1, 0], [0, 0]]
    assert most_salient(values, mask, 1).tolist() == [[0, 1]]
    assert most_salient(values, mask, 0).shape == (0, 2)


def test_without_tissue_nothing_matters(make_grid, make_model):
    grid = make_grid()
    bare = dataclasses.replace(grid, mask=np.zeros_like(grid.mask))
    for model in ("mil", "cnn"):
        assert (saliency(make_model(model).network, bare, 0) == 0).all()
