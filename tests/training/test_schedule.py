"""Learning rates over the steps, and who has which."""

from __future__ import annotations

from itertools import pairwise

import pytest
import timm

from patchknn.encoder.network import EncoderNetwork
from patchknn.training.defaults import resolve
from patchknn.training.schedule import make_optimizer, rate_factor, set_rates


def test_the_rate_rises_then_falls_to_a_hundredth(make_settings):
    settings = make_settings(warmup=0.1)
    factors = [rate_factor(settings, step, 100, 10) for step in range(100)]
    assert factors[0] < factors[5] < factors[9] < 1
    assert factors[10] == pytest.approx(1)
    assert all(later < earlier for earlier, later in pairwise(factors[10:]))
    assert rate_factor(settings, 100, 100, 10) == pytest.approx(0.01)


def test_steps_halve_the_rate_after_their_epochs_as_paper_b_prints(make_settings):
    settings = make_settings(schedule="step", step_epochs=20, step_factor=0.5, warmup=0.0)
    factors = [rate_factor(settings, epoch * 7, 60 * 7, 7) for epoch in (0, 19, 20, 39, 40, 59)]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_no_step_has_a_rate_of_zero(make_settings):
    assert rate_factor(make_settings(), 0, 1, 1) > 0


@pytest.mark.parametrize(("loss", "heads"), [("multitask", True), ("deep-knn", False)])
def test_each_parameter_has_its_rate_and_no_norm_decays(make_settings, loss, heads):
    network = EncoderNetwork(timm.create_model("test_resnet", num_classes=0), 256, 16, (3,))
    settings = resolve(make_settings(loss=loss, lr=0.1, backbone_lr=0.01), [3], 100)
    optimizer = make_optimizer(network, settings)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in network.backbone.parameters()} == {0.01}
    assert (id(network.hash_layer.weight) in rates) is heads
    if heads:
        assert rates[id(network.hash_layer.weight)] == 0.1
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    set_rates(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} <= {0.05, 0.005}
