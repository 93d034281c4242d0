"""Settings that cannot be: one sentence, with option and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from patchknn.datasets.augmentation import AUGMENTATIONS
from patchknn.errors import UsageError
from patchknn.losses.triplet import Mining
from patchknn.training.checks import check, parse_max_bad


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
        ({"mining": "hardest"}, ["--mining hardest", "batch-hard"]),
        ({"augment": "all"}, ["--augment all", "tissue"]),
        ({"schedule": "linear"}, ["--schedule linear", "cosine"]),
        ({"bank": 10}, ["--bank", "deep-knn"]),
        ({"normalize": True}, ["--normalize", "deep-knn, none, triplet", "multitask"]),
        ({"bank": 0, "loss": "deep-knn"}, ["--bank 0"]),
        ({"accumulate": 0}, ["--accumulate 0"]),
        ({"ema": 1.0}, ["--ema 1.0"]),
        ({"crop": 1.5}, ["--crop 1.5"]),
        ({"max_bad": "many"}, ["--max-bad many", "5%"]),
        ({"max_bad": "101%"}, ["--max-bad 101%"]),
        ({"max_bad": "1.5"}, ["--max-bad 1.5"]),
        ({"backbone": None}, ["--backbone", "--from"]),
        ({"pretrained": True, "weights": Path("w")}, ["--pretrained and --weights"]),
        ({"from_encoder": Path("e")}, ["--from", "--backbone"]),
        ({"features": True}, ["--backbone", "--features"]),
        ({"task_weights": {"a": -1.0}}, ["--task-weight a"]),
        ({"w_ce": 1.0, "loss": "cross-entropy"}, ["--w-ce", "--loss cross-entropy"]),
        ({"w_ce": 0.0, "loss": "none"}, ["--w-ce", "--loss none"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(make_settings, change, words):
    with pytest.raises(UsageError) as caught:
        check(make_settings(**change))
    assert all(word in str(caught.value) for word in words)


def test_unreadable_images_are_allowed_by_number_or_by_share():
    assert parse_max_bad("20", 1000) == 20
    assert parse_max_bad("5%", 1000) == 50
    assert parse_max_bad("5%", 7) == 1
    assert parse_max_bad("0", 7) == parse_max_bad("0%", 7) == 0


def test_every_recipe_and_every_miner_there_is_can_be_asked_for(make_settings):
    for recipe in AUGMENTATIONS:
        check(make_settings(augment=recipe))
    for mining in get_args(Mining):
        check(make_settings(loss="triplet", mining=mining))
