"""The poolings against what NumPy makes of them, and how far the network sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def grid():
    return torch.from_numpy(np.random.default_rng(0).normal(0, 1, (3, 4, 5, 6))).double()


def test_mean_max_and_logsumexp_are_what_numpy_says(module, grid):
    network = module("network")
    flat = grid.numpy().reshape(3, 4, 30)
    assert np.allclose(network.Mean()(grid), flat.mean(axis=2))
    assert np.allclose(network.Max()(grid), flat.max(axis=2))
    literal = np.log(np.exp(5.0 * flat).mean(axis=2)) / 5.0
    assert np.allclose(network.LogSumExp(5.0)(grid), literal)
    assert np.allclose(network.LogSumExp(1e-4)(grid), flat.mean(axis=2), atol=1e-3)
    assert np.allclose(network.LogSumExp(1e4)(grid), flat.max(axis=2), atol=1e-3)


def test_attention_is_a_mean_weighted_place_by_place(module, grid):
    torch.manual_seed(0)
    pool = module("network").Attention(4).double()
    given = {name: value.detach().numpy() for name, value in pool.named_parameters()}
    pooled = pool(grid).detach().numpy()
    for image, found in zip(grid.numpy(), pooled, strict=True):
        scores = []
        for place in image.reshape(4, 30).T:
            content = given["content.weight"][:, :, 0, 0] @ place + given["content.bias"]
            gate = given["gate.weight"][:, :, 0, 0] @ place + given["gate.bias"]
            gated = np.tanh(content) / (1 + np.exp(-gate))
            scores.append(float(given["score.weight"][0, :, 0, 0] @ gated))
        weights = np.exp(scores) / np.exp(scores).sum()
        assert np.allclose(image.reshape(4, 30) @ weights, found)


@pytest.mark.parametrize(("object_px", "seen"), [(8, 13), (16, 25), (32, 49)])
def test_a_feature_sees_the_object_and_its_surroundings(module, object_px, seen):
    """Of the gradient of one place's features: how many pixels it reaches."""
    network = module("network")
    torch.manual_seed(0)
    layers = network.build_network(1, object_px, "mean", 16).double().eval()[:-3]
    image = torch.ones(1, 1, 128, 128, dtype=torch.double, requires_grad=True)
    features = layers(image)
    features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
    reached = np.argwhere(image.grad[0, 0].numpy() != 0)
    extent = reached.max(axis=0) - reached.min(axis=0) + 1
    assert (extent <= seen).all()
    assert (extent >= 0.8 * seen).all()
    assert (extent > object_px).all()


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp", "attention"])
def test_canvases_of_any_size_give_one_answer_each(module, pooling):
    layers = module("network").build_network(3, 8, pooling, 8).eval()
    for size in (18, 31, 64):
        assert layers(torch.zeros(2, 3, size, size)).shape == (2,)
