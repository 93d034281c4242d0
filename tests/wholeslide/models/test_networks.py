"""Slide networks against literal loops over places, and what must not change their answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchknn.errors import InputError
from patchknn.wholeslide.models.making import MODELS, make_network
from patchknn.wholeslide.models.tissue import (
    gathered,
    max_of_slides,
    mean_of_slides,
    softmax_of_slides,
)


@pytest.fixture
def batch():
    """Three slides of 5 features, the last without tissue."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(3, 6, 7, generator=generator) < 0.5
    mask[2] = False
    return torch.randn(3, 5, 6, 7, generator=generator) * mask[:, None], mask


def _vectors(features, mask, slide):
    places = [(r, c) for r in range(6) for c in range(7) if mask[slide, r, c]]
    return [features[slide, :, r, c] for r, c in places], places


def test_pooling_is_that_of_a_loop(batch):
    features, mask = batch
    vectors, owner = gathered(features, mask)
    scores = vectors[:, 0] * 30
    means, largest = mean_of_slides(vectors, owner, 3), max_of_slides(vectors, owner, 3)
    weights = softmax_of_slides(scores, owner, 3)
    for slide in (0, 1):
        own, _ = _vectors(features, mask, slide)
        stacked = torch.stack(own)
        torch.testing.assert_close(means[slide], stacked.mean(dim=0))
        torch.testing.assert_close(largest[slide], stacked.amax(dim=0))
        torch.testing.assert_close(weights[owner == slide], (stacked[:, 0] * 30).softmax(dim=0))
    assert (means[2] == 0).all()
    assert (largest[2] == 0).all()


def test_attention_is_equations_7_and_9_of_ilse(batch):
    features, mask = batch
    torch.manual_seed(0)
    network = make_network("mil", 5, 2, {"hidden": 4, "dropout": 0.2}).eval()
    outputs, attention = network(features, mask), network.attention(features, mask)
    for slide in (0, 1):
        own, places = _vectors(features, mask, slide)
        h = [torch.relu(network.embedding[0](v)) for v in own]
        raw, pooling = [], network.pooling
        for each in h:
            tanh = torch.tanh(pooling.tanh_part.weight @ each + pooling.tanh_part.bias)
            sigm = torch.sigmoid(pooling.gate_part.weight @ each + pooling.gate_part.bias)
            raw.append(torch.exp(pooling.score.weight[0] @ (tanh * sigm)))
        a = [value / sum(raw) for value in raw]
        z = sum(weight * each for weight, each in zip(a, h, strict=True))
        torch.testing.assert_close(outputs[slide], network.head(z))
        for weight, (r, c) in zip(a, places, strict=True):
            assert attention[slide, r, c].item() == pytest.approx(weight.item(), rel=1e-4)
    assert attention[~mask].eq(0).all()


@pytest.mark.parametrize("model", MODELS)
def test_padding_and_company_change_nothing(batch, model):
    features, mask = batch
    torch.manual_seed(0)
    network = make_network(model, 5, 3, {}).eval()
    network.input.fit(np.random.default_rng(0).normal(2, 3, (50, 5)))
    together = network(features, mask)
    assert together.shape == (3, 3)
    assert together.isfinite().all()
    for slide in range(3):
        alone = network(features[slide : slide + 1], mask[slide : slide + 1])
        torch.testing.assert_close(alone[0], together[slide])
        # Eight places are a whole number of strides.
        wide = torch.nn.functional.pad(features[slide : slide + 1], (8, 3, 8, 5))
        wide_mask = torch.nn.functional.pad(mask[slide : slide + 1], (8, 3, 8, 5))
        torch.testing.assert_close(network(wide, wide_mask)[0], together[slide])


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_trained(batch, model):
    features, mask = batch
    network = make_network(model, 5, 2, {})
    network(features[:2], mask[:2]).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("score.bias"):  # which a softmax does not see
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", MODELS)
def test_one_place_is_enough(model):
    network = make_network(model, 5, 2, {}).eval()
    assert network(torch.ones(1, 5, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)).isfinite().all()


def test_unknown_models_and_settings_are_said():
    with pytest.raises(InputError, match="'transformer' is no slide model"):
        make_network("transformer", 5, 2, {})
    with pytest.raises(InputError, match="cannot be made of"):
        make_network("mean", 5, 2, {"depth": 3})
