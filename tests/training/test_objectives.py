"""Losses by their names: a classification beside a metric loss, and what it weighs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch.nn import functional

from patchknn.encoder.network import EncoderOutput
from patchknn.training.context import Context
from patchknn.training.defaults import resolve
from patchknn.training.objectives import make_objective
from patchknn.training.tasks import Task

_LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])


def objective_of(settings):
    task = Task("label", ("a", "b", "c"))
    parts = {"settings": resolve(settings, [3], 9), "tasks": (task,), "labels": _LABELS.numpy()}
    return make_objective(cast("Context", SimpleNamespace(**parts)))


def an_output() -> EncoderOutput:
    generator = torch.Generator().manual_seed(0)
    features, hashes, logits = (
        torch.randn(9, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for width in (5, 16, 3)
    )
    return EncoderOutput(features, hashes, (logits,))


@pytest.mark.parametrize("loss", ["deep-knn", "triplet"])
def test_a_classification_beside_a_metric_loss_adds_its_weight_times_cross_entropy(
    make_settings, loss
):
    output = an_output()
    alone = objective_of(make_settings(loss=loss))(output, _LABELS, None)
    joint = objective_of(make_settings(loss=loss, w_ce=0.7, label_smoothing=0.1))(
        output, _LABELS, None
    )
    classified = functional.cross_entropy(output.logits[0], _LABELS, label_smoothing=0.1)
    assert joint.total.item() == pytest.approx(alone.total.item() + 0.7 * classified.item(), 1e-6)
    assert joint.parts["cross_entropy"].item() == pytest.approx(classified.item(), 1e-6)
    assert joint.parts.keys() - alone.parts.keys() == {"cross_entropy"}
    assert joint.triplets == alone.triplets
    assert joint.active == alone.active


@pytest.mark.parametrize("loss", ["deep-knn", "triplet"])
@pytest.mark.parametrize("w_ce", [None, 0.0])
def test_a_metric_loss_alone_asks_for_no_classifier(make_settings, loss, w_ce):
    features, hashes, _ = an_output()
    settings = make_settings(loss=loss, w_ce=w_ce)
    terms = objective_of(settings)(EncoderOutput(features, hashes, ()), _LABELS, None)
    assert "cross_entropy" not in terms.parts


@pytest.mark.parametrize(("given", "weight"), [(None, 1.0), (0.0, 0.0), (3.0, 3.0)])
def test_the_classification_of_multitask_weighs_1_unless_said(make_settings, given, weight):
    output = an_output()
    terms = objective_of(make_settings(w_ce=given))(output, _LABELS, None)
    others = sum(terms.parts[name] for name in ("triplet", "cauchy", "quantization"))
    classified = functional.cross_entropy(output.logits[0], _LABELS)
    assert terms.total.item() == pytest.approx((others + weight * classified).item(), 1e-6)
