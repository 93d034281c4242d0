"""What the label hangs on, and that nothing easier tells the classes apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from patchknn.errors import UsageError
from patchknn.simulate.needle_settings import NeedleSettings
from patchknn.simulate.needles import check_settings, draw, objects_of, place, plan_images

DIGITS = NeedleSettings(ratio=0.01, images=200, size_px=128, seed=3)
TISSUE = NeedleSettings(kind="tissue", ratio=0.07, images=160, size_px=96, mpp=1.0, seed=3)
BOTH = pytest.mark.parametrize("settings", [DIGITS, TISSUE], ids=["digits", "tissue"])


@BOTH
def test_classes_and_patients_are_balanced_in_every_split(settings: NeedleSettings) -> None:
    images = plan_images(settings)
    assert [image.number for image in images] == list(range(settings.images))
    counts = Counter((image.split, image.label) for image in images)
    for split in ("train", "val", "test"):
        assert counts[split, "needle"] == counts[split, "clutter"] > 0
    assert counts["train", "needle"] == 0.7 * settings.images / 2
    by_patient = Counter((image.patient, image.positive) for image in images)
    patients = {image.patient for image in images}
    assert all(by_patient[p, True] == by_patient[p, False] for p in patients)
    assert len({(image.patient, image.split) for image in images}) == len(patients)


@pytest.mark.parametrize(("size", "ratio"), [(64, 0.191), (256, 0.01), (6144, 0.0000208)])
def test_the_needle_has_the_ratio_that_was_asked(size: int, ratio: float) -> None:
    settings = NeedleSettings(ratio=ratio, size_px=size, images=4)
    image = plan_images(settings)[1]
    scene, pixels = draw(settings, image)
    without = pixels.copy()
    x, y = scene.needle
    without[y : y + settings.object_px, x : x + settings.object_px] = 0
    changed = np.argwhere(pixels != without)
    box = changed.max(axis=0) - changed.min(axis=0) + 1
    # All ink of the needle lies in a box of that area, and fills its height.
    assert box[0] == pytest.approx(np.sqrt(ratio) * size, abs=1.5)
    assert settings.realised_ratio == pytest.approx(ratio, rel=1 / settings.object_px)


@BOTH
def test_both_classes_hold_equally_many_objects_and_none_overlap(settings: NeedleSettings) -> None:
    for image in plan_images(settings):
        points = place(settings, image).points
        assert len(points) == objects_of(settings)
        apart = np.abs(points[:, None] - points[None]) + np.eye(len(points))[..., None] * 1e9
        if settings.kind == "digits":
            assert apart.max(axis=2).min() >= settings.object_px
            assert points.min() >= 0
            assert points.max() <= settings.size_px - settings.object_px
        else:
            assert np.hypot(*np.moveaxis(apart, 2, 0)).min() * settings.mpp > 6.3


def test_digits_can_be_counted_in_the_pixels() -> None:
    """What is drawn, not what was planned: as many separate things, or parts of digits, as said."""
    sparse = replace(DIGITS, clutter=0.2)
    for image in plan_images(sparse)[:20]:
        scene, pixels = draw(sparse, image)
        thick = ndimage.grey_dilation(pixels, 3) > 0
        assert ndimage.label(thick, np.ones((3, 3)))[1] <= objects_of(sparse)
        for x, y in scene.points.astype(int):
            box = pixels[y : y + sparse.object_px, x : x + sparse.object_px]
            assert box.mean() == pytest.approx(0.17 * 255, rel=0.02)


def test_the_needle_is_a_three_and_no_other_is() -> None:
    """By the nearest original, as scikit-learn gives it."""
    from PIL import Image

    loaded = load_digits()
    settings = replace(DIGITS, ratio=(8 / 128) ** 2, images=20)
    flat = loaded.images.reshape(len(loaded.images), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    seen: dict[int, set[str]] = {}
    for image in plan_images(settings):
        scene, pixels = draw(settings, image)
        shown = []
        for x, y in scene.points.astype(int):
            box = np.asarray(Image.fromarray(pixels[y : y + 8, x : x + 8])).ravel().astype(float)
            nearest = int(np.argmax(flat @ box))
            shown.append(int(loaded.target[nearest]))
            seen.setdefault(nearest, set()).add(image.split)
        assert (shown.count(3), shown[:1] == [3]) == ((1, True) if image.positive else (0, False))
    assert all(len(splits) == 1 for splits in seen.values())  # no split shows another's originals


@BOTH
def test_neither_brightness_nor_contrast_tells_the_classes_apart(settings: NeedleSettings) -> None:
    images = plan_images(settings)
    pixels = [draw(settings, image)[1].astype(float) for image in images]
    labels = [image.positive for image in images]
    for figure in (np.mean, np.median, lambda p: np.quantile(p, 0.02)):
        auroc = roc_auc_score(labels, [figure(p) for p in pixels])
        assert abs(auroc - 0.5) < 0.13  # three standard errors of chance


def test_what_was_made_to_tell_them_apart_does() -> None:
    """The window densest in dark nuclei finds the cluster, which no figure of all pixels does."""
    settings = replace(TISSUE, ratio=0.04, size_px=256)
    windows, means = [], []
    images = plan_images(settings)[:60]
    for image in images:
        red = draw(settings, image)[1][..., 0].astype(float)
        dark = (red < np.quantile(red, 0.06)).astype(float)
        windows.append(ndimage.uniform_filter(dark, int(0.8 * settings.object_px)).max())
        means.append(red.mean())
    labels = [image.positive for image in images]
    assert roc_auc_score(labels, windows) > 0.9
    assert abs(roc_auc_score(labels, means) - 0.5) < 0.2


def test_a_cluster_lies_in_its_box_and_the_rest_outside() -> None:
    for size, ratio in ((96, 0.07), (512, 0.19), (2048, 0.002)):
        settings = replace(TISSUE, size_px=size, ratio=ratio, images=40)
        members = objects_of(settings) - len(place(settings, plan_images(settings)[1]).points)
        assert members == 0
        for image in plan_images(settings)[1::2]:
            scene = place(settings, image)
            low = np.array(scene.needle)
            inside = ((scene.points > low) & (scene.points < low + settings.object_px)).all(axis=1)
            first = int(np.flatnonzero(~inside)[0])
            assert inside.sum() == first >= 4
            # Whole nuclei, of about 6.5 µm, lie in the box.
            held = scene.points[:first]
            assert (held - 2.5 / settings.mpp > low).all()
            assert (held + 2.5 / settings.mpp < low + settings.object_px).all()


@BOTH
def test_an_image_hangs_on_the_seed_and_its_number_alone(settings: NeedleSettings) -> None:
    images = plan_images(settings)
    scene, pixels = draw(settings, images[7])
    draw(settings, images[2])
    again, same = draw(settings, images[7])
    assert np.array_equal(pixels, same)
    assert again.needle == scene.needle == place(settings, images[7]).needle
    other = replace(settings, seed=4)
    assert not np.array_equal(pixels, draw(other, plan_images(other)[7])[1])


def test_every_patient_is_stained_in_its_own_way() -> None:
    images = plan_images(replace(TISSUE, patients=4))
    means: dict[int, list[float]] = {}
    for image in images:
        red, _, blue = draw(replace(TISSUE, patients=4), image)[1].mean(axis=(0, 1))
        means.setdefault(image.patient, []).append(red / blue)
    within = np.mean([np.std(values) for values in means.values()])
    assert np.std([np.mean(values) for values in means.values()]) > within


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ratio": 1.5}, "--ratio 1.5 is no share of an image"),
        ({"ratio": float("nan")}, "--ratio nan is no share"),
        ({"ratio": 0.001}, "a needle of 4 px, and one of digits needs 8 px: give --size 238 or"),
        ({"ratio": 0.001}, "or --ratio 0.39% or more."),
        ({"ratio": 1e-9}, "needs 8 px: give --ratio 0.39% or more."),
        ({"kind": "tissue", "ratio": 0.1, "size_px": 40}, "give --size 151 or more."),
        ({"kind": "tissue", "ratio": 0.6}, "give a smaller --ratio or less --clutter."),
        ({"images": 7}, "--images 7 cannot be half with a needle"),
        ({"size_px": 9000}, "--size 9000 is not 8 to 8192 px."),
        ({"kind": "tissue", "ratio": 0.2, "patients": 2}, "cannot be shared by 3 splits"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_settings(replace(DIGITS, **wrong))
    assert sentence in str(caught.value)


def test_the_sizes_that_an_error_names_work() -> None:
    check_settings(replace(DIGITS, ratio=0.001, size_px=238))
    check_settings(replace(DIGITS, ratio=0.0039))
    check_settings(replace(TISSUE, ratio=0.1, mpp=0.5, size_px=151))
