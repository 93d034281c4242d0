"""Which images train and which judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchknn.datasets.listing import iter_patches
from patchknn.datasets.patches import Patch
from patchknn.errors import InputError, UsageError
from patchknn.training.selection import SplitChoice, select, write_splits


def _patches(labels, patients=None, splits=None):
    return [
        Patch(
            f"{i}.png",
            Path(f"/data/{i}.png"),
            "image",
            label=label,
            patient=patients[i] if patients else None,
            split=splits[i] if splits else None,
        )
        for i, label in enumerate(labels)
    ]


def _select(patches, split=None, val_split=None, **options):
    choice = SplitChoice.parse(split, val_split)
    return select(patches, choice, seed=0, **{"needs_labels": True, **options})


def test_patients_never_stand_on_both_sides():
    patches = _patches(["a", "b"] * 30, [f"P{i // 6}" for i in range(60)])
    chosen = _select(patches, "70/15/15")
    sides = [{p.patient for p in part} for part in (chosen.train, chosen.val)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert {p.split for p in chosen.assigned} == {"train", "val", "test"}
    assert len(chosen.assigned) == 60


def test_a_split_column_is_used_where_there_is_one():
    patches = _patches(["a", "b"] * 4, splits=["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    chosen = _select(patches)
    assert (len(chosen.train), len(chosen.val), chosen.assigned) == (4, 2, ())
    assert len(_select(patches, "none").train) == 8
    assert len(_select(patches, "train", "test").val) == 2


def test_without_a_split_column_a_share_is_held_out():
    chosen = _select(_patches(["a", "b"] * 20))
    assert len(chosen.train) + len(chosen.val) == 40
    assert 4 <= len(chosen.val) <= 8


def test_unlabelled_images_are_counted_and_left_out():
    chosen = _select(_patches(["a", None, "b", None] * 5))
    assert "10 images without a label are left out" in chosen.remarks[0]
    assert len(chosen.train) + len(chosen.val) == 10
    kept = _select(_patches(["a", None, "b", None] * 5), needs_labels=False)
    assert len(kept.train) + len(kept.val) == 20


def test_a_class_with_one_image_is_named_and_kept():
    chosen = _select(_patches(["a"] * 9 + ["b"] * 9 + ["rare"]), "none")
    assert any("rare" in remark for remark in chosen.remarks)
    assert chosen.class_counts()["rare"] == 1


@pytest.mark.parametrize(
    ("labels", "word"),
    [([], "no image"), (["a"] * 8, "'a'"), ([None] * 3, "--loss none")],
)
def test_what_cannot_be_learnt_from_is_said(labels, word):
    with pytest.raises(InputError, match=word):
        _select(_patches(labels))


def test_classes_that_only_validation_has_are_left_out_of_it():
    patches = _patches(["a", "b"] * 4 + ["new"], splits=["train"] * 6 + ["val"] * 3)
    chosen = _select(patches)
    assert chosen.class_names == ("a", "b")
    assert {p.label for p in chosen.val} == {"a", "b"}
    assert any("new" in remark for remark in chosen.remarks)


@pytest.mark.parametrize("split", ["70/x", "70", "1/2/3/4"])
def test_a_malformed_or_unknown_split_is_a_usage_error(split):
    with pytest.raises(UsageError, match=split):
        _select(_patches(["a", "b"] * 4), split)


def test_written_splits_are_a_manifest_that_gives_the_same_patches(pictures, tmp_path):
    patches = [replace(p, split="train") for p in pictures(per_class=2, patients=2)]
    file = tmp_path / "encoder.splits.csv"
    write_splits(file, patches)
    assert list(iter_patches([file], size=32, mpp=None)) == patches
