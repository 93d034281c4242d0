"""Averaged weights against the recurrence written out, and how they step in for the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from patchknn.training.averaging import AveragedWeights


def test_the_average_is_the_recurrence_with_a_decay_that_rises():
    layer = nn.Linear(3, 2)
    average = AveragedWeights(layer, decay=0.5)
    rng = np.random.default_rng(0)
    expected = layer.weight.detach().numpy().astype(float)
    for step in range(12):
        values = rng.normal(size=(2, 3))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(values))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * values
    assert average.state["weight"].numpy() == pytest.approx(expected, rel=1e-5)


def test_counters_are_taken_over_and_weights_come_back():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AveragedWeights(network, decay=0.9)
    network(torch.randn(4, 2))
    own = {name: value.clone() for name, value in network.state_dict().items()}
    average.update()
    assert average.state["1.num_batches_tracked"] == 1
    with torch.no_grad():
        network[0].weight.zero_()
    with average.in_place():
        assert torch.equal(network[0].weight, average.state["0.weight"])
        assert not torch.equal(network[0].weight, torch.zeros(2, 2))
    assert torch.equal(network[0].weight, torch.zeros(2, 2))
    assert torch.equal(network[0].bias, own["0.bias"])
