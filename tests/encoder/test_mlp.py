"""Paper B's MLP: its formula by a literal loop, its standardisation, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from patchknn.encoder.mlp import Chained, FeatureMLP
from patchknn.errors import ConflictError, InputError


def settle(mlp, seed=0):
    """The MLP with batch norm as after training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in mlp.layers:
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.copy_(torch.rand(layer.num_features, generator=generator) - 0.5)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    return mlp.eval()


def test_rows_by_a_literal_computation_in_float64():
    torch.manual_seed(0)
    features = np.random.default_rng(0).normal(3, 2, (40, 6)).astype(np.float32)
    mlp = settle(FeatureMLP(6, 5, 4))
    mlp.fit_input(features)
    state = {name: value.double().numpy() for name, value in mlp.state_dict().items()}
    value = (features.astype(np.float64) - features.mean(0, np.float64)) / features.std(
        0, dtype=np.float64
    )
    for linear, norm in ((0, 1), (3, 4)):
        value = value @ state[f"layers.{linear}.weight"].T
        deviation = np.sqrt(state[f"layers.{norm}.running_var"] + 1e-5)
        value = (value - state[f"layers.{norm}.running_mean"]) / deviation
        value = value * state[f"layers.{norm}.weight"] + state[f"layers.{norm}.bias"]
        value = np.maximum(value, 0)
    expected = value @ state["layers.6.weight"].T + state["layers.6.bias"]
    with torch.no_grad():
        result = mlp(torch.from_numpy(features))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert (expected < 0).any()


def test_the_widths_are_those_asked_for_and_counted_by_hand():
    mlp = FeatureMLP(2048)
    counted = sum(parameter.numel() for parameter in mlp.parameters())
    norms = 2 * (512 + 512)
    assert counted == 2048 * 512 + 512 * 512 + norms + 512 * 256 + 256
    assert mlp.settings == {"kind": "mlp", "input_dim": 2048, "hidden": 512, "output_dim": 256}
    assert FeatureMLP(7, 3, 2)(torch.zeros(4, 7)).shape == (4, 2)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_training_features_come_in_with_mean_zero_and_spread_one(tmp_path, dtype):
    values = np.random.default_rng(1).normal([-4, 0, 50], [0.5, 3, 2], (20_000, 3)).astype(dtype)
    file = tmp_path / "features.npy"
    np.save(file, values)
    mlp = FeatureMLP(3)
    mlp.fit_input(np.load(file, mmap_mode="r"))
    standard = (torch.from_numpy(values.astype(np.float32)) - mlp.mean) / mlp.scale
    assert standard.double().mean(0).abs().max() < 1e-4
    assert (standard.double().std(0, correction=0) - 1).abs().max() < 1e-4


def test_an_element_that_is_hardly_ever_set_does_not_drown_the_others():
    values = np.random.default_rng(2).normal(size=(10_000, 3)).astype(np.float32)
    values[:, 1] = 0
    values[5, 1] = 1e-3
    values[:, 2] = 7
    mlp = FeatureMLP(3)
    mlp.fit_input(values)
    standard = (torch.from_numpy(values) - mlp.mean) / mlp.scale
    assert torch.isfinite(standard).all()
    assert standard[:, 1:].abs().max() < 1
    mlp.fit_input(np.full((4, 3), 7, np.float32))
    assert torch.equal(mlp.scale, torch.ones(3))


def test_features_that_cannot_be_standardised_by_are_named():
    mlp = FeatureMLP(3)
    with pytest.raises(InputError, match="no features"):
        mlp.fit_input(np.zeros((0, 3), np.float32))
    for wrong in (np.nan, np.inf):
        with pytest.raises(InputError, match="NaN or an infinity"):
            mlp.fit_input(np.array([[1, 2, 3], [1, wrong, 3]], np.float16))
    with pytest.raises(ConflictError, match="takes stored features of 3 per patch"):
        mlp.fit_input(np.zeros((2, 4), np.float32))
    assert torch.equal(mlp.mean, torch.zeros(3))


@pytest.mark.parametrize("shape", [(2, 4), (3,), (2, 3, 32, 32)])
def test_anything_but_such_features_is_refused(shape):
    with pytest.raises(ConflictError, match="takes stored features of 3 per patch"):
        FeatureMLP(3)(torch.zeros(shape))


def test_gradients_reach_the_mlp_and_the_backbone_behind_which_it_stands():
    torch.manual_seed(0)
    chained = Chained(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), FeatureMLP(5, 4, 3))
    chained(torch.randn(6, 3, 2, 2)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in chained.parameters())
