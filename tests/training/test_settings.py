"""Defaults that hang on loss and backbone, and settings that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchknn.errors import UsageError
from patchknn.training.settings import check


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": "multitaks"}, ["multitaks", "multitask"]),
        ({"loss": "deepknn"}, ["deep-knn"]),
        ({"loss": "xyz"}, ["multitask, deep-knn, cross-entropy, triplet, none"]),
        ({"optimizer": "adam"}, ["adamw"]),
        ({"precision": "float8"}, ["float16"]),
        ({"bits": 20}, ["20", "multiples of 8"]),
        ({"lr": -1.0}, ["--lr"]),
        ({"lr": float("nan")}, ["--lr"]),
        ({"gamma": 0.0}, ["--gamma"]),
        ({"per_class": 1}, ["--per-class 1"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(make_settings, change, words):
    with pytest.raises(UsageError) as caught:
        check(make_settings(**change))
    assert all(word in str(caught.value) for word in words)


def test_new_layers_come_first_only_where_there_are_new_layers_on_a_trained_backbone(
    make_settings,
):
    trained = make_settings(weights=Path("w.safetensors"))
    assert trained.resolved(3).head_epochs == 5
    assert replace(trained, head_epochs=2).resolved(3).head_epochs == 2
    assert make_settings().resolved(3).head_epochs == 0
    assert replace(trained, loss="deep-knn").resolved(3).head_epochs == 0


def test_a_backbone_with_weights_moves_slowly_and_keeps_its_batch_norm(make_settings):
    scratch, trained = make_settings(), make_settings(pretrained=True)
    assert scratch.resolved(3).backbone_lr == scratch.resolved(3).lr
    assert trained.resolved(3).backbone_lr < trained.resolved(3).lr
    assert not scratch.frozen_batch_norm
    assert trained.frozen_batch_norm
    assert not replace(trained, freeze_batch_norm="no").frozen_batch_norm
    assert replace(scratch, freeze_batch_norm="yes").frozen_batch_norm


@pytest.mark.parametrize(("classes", "shape"), [(2, (2, 32)), (9, (9, 8)), (200, (16, 8))])
def test_batches_hold_about_64_images_and_never_fewer_than_8_of_a_class(
    make_settings, classes, shape
):
    assert make_settings(per_class=None).resolved(classes).batch_shape == shape


def test_the_digest_tells_results_apart_and_nothing_else(make_settings):
    settings = make_settings()
    assert settings.digest() == replace(settings, workers=7, device="cuda").digest()
    assert settings.digest() != replace(settings, alpha=1.0).digest()
    assert settings.digest() != replace(settings, seed=1).digest()
