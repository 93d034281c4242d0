"""Defaults that hang on loss, backbone and classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchknn.training.defaults import resolve


def test_new_layers_come_first_only_where_there_are_new_layers_on_a_trained_backbone(
    make_settings,
):
    trained = make_settings(weights=Path("w.safetensors"))
    assert resolve(trained, [3], 100).head_epochs == 5
    assert resolve(replace(trained, head_epochs=2), [3], 100).head_epochs == 2
    assert resolve(make_settings(), [3], 100).head_epochs == 0
    assert resolve(replace(trained, loss="deep-knn"), [3], 100).head_epochs == 0
    assert resolve(replace(trained, loss="deep-knn", w_ce=1.0), [3], 100).head_epochs == 5


def test_a_backbone_with_weights_moves_slowly_and_keeps_its_batch_norm(make_settings):
    scratch, trained = make_settings(), make_settings(pretrained=True)
    assert resolve(scratch, [3], 100).backbone_lr == resolve(scratch, [3], 100).lr
    assert resolve(trained, [3], 100).backbone_lr < resolve(trained, [3], 100).lr
    assert not scratch.frozen_batch_norm
    assert trained.frozen_batch_norm
    assert not replace(trained, freeze_batch_norm="no").frozen_batch_norm
    assert replace(scratch, freeze_batch_norm="yes").frozen_batch_norm


@pytest.mark.parametrize(("classes", "shape"), [(2, (2, 32)), (9, (9, 8)), (200, (16, 8))])
def test_batches_hold_about_64_images_and_never_fewer_than_8_of_a_class(
    make_settings, classes, shape
):
    assert resolve(make_settings(per_class=None), [classes], 100).batch_shape == shape


@pytest.mark.parametrize(
    ("images", "epochs"), [(100, 20), (6_312, 20), (20_000, 10), (100_000, 5), (10_000_000, 5)]
)
def test_many_images_need_fewer_passes(make_settings, images, epochs):
    settings = make_settings(epochs=None)
    assert resolve(settings, [4], images).epochs == epochs
    assert resolve(replace(settings, epochs=3), [4], images).epochs == 3
