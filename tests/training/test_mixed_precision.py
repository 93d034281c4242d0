"""Half precision where it computes, and not in what a network is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from patchknn.encoder.mlp import FeatureMLP
from patchknn.training.ranks import join_ranks


def _ranks(precision):
    return join_ranks(torch.device("cpu"), precision)


def test_features_are_standardised_before_they_are_rounded():
    torch.manual_seed(0)
    features = 1000 + torch.randn(200, 8)  # two neighbours of bfloat16 are 4 apart here
    network = FeatureMLP(8, 16, 4).eval()
    network.fit_input(features.numpy())
    network.scale.fill_(1.0)  # which has a floor otherwise
    with torch.no_grad():
        exact = network(features)
        found = _ranks("bfloat16").fabric.setup_module(network)(features)
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("precision", "computed"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_layers_compute_in_the_precision_and_give_float32(precision, computed):
    seen = []
    linear = nn.Linear(3, 2)
    linear.register_forward_hook(lambda _module, _given, result: seen.append(result.dtype))
    result = _ranks(precision).fabric.setup_module(nn.Sequential(linear))(torch.ones(1, 3))
    assert seen == [computed]
    assert result.dtype == torch.float32
    assert linear.weight.dtype == torch.float32
