"""Augmentation: reproducible, the same in any part of a batch, and each recipe what it says."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.datasets.augmentation import AUGMENTATIONS, Augment, Augmentation
from patchknn.errors import UsageError


def _images(count=16, side=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def _windows(image, size):
    """Every window (3, size, size) of an image (3, H, W), as bytes."""
    return {
        image[:, y : y + size, x : x + size].contiguous().numpy().tobytes()
        for y in range(image.shape[1] - size + 1)
        for x in range(image.shape[2] - size + 1)
    }


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_seed_reproduces_a_batch_and_another_changes_it(name):
    augment, images = Augment(AUGMENTATIONS[name], 32), _images()
    once, again = augment(images, _seeded(1)), augment(images, _seeded(1))
    assert torch.equal(once, again)
    assert torch.equal(once, augment(images, _seeded(2))) == (name == "none")
    assert (once.dtype, once.shape) == (torch.uint8, (16, 3, 32, 32))


def test_without_a_generator_torchs_own_one_serves():
    augment, images = Augment(AUGMENTATIONS["tissue"], 32), _images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        once = augment(images)
        torch.manual_seed(5)
        assert torch.equal(once, augment(images))
        assert not torch.equal(once, augment(images))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, 23), max_size=4), side=st.sampled_from([33, 37, 40]))
def test_parts_of_a_batch_give_together_what_the_whole_gives(name, cuts, side):
    augment, images = Augment(AUGMENTATIONS[name], 33), _images(23, side)
    parameters = augment.draw(23, _seeded(3))
    whole = augment.apply(images, parameters)
    edges = [0, *sorted(cuts), 23]
    parts = [
        augment.apply(images[first:end], parameters[first:end]) for first, end in pairwise(edges)
    ]
    assert torch.equal(torch.cat(parts), whole)
    picked = torch.tensor([20, 3, 7])
    assert torch.equal(augment.apply(images[picked], parameters[picked]), whole[picked])
    assert torch.equal(augment(images, _seeded(3)), whole)


def test_a_batch_that_is_done_in_several_goes_is_the_same(monkeypatch):
    augment, images = Augment(AUGMENTATIONS["tissue"], 32), _images(11)
    parameters = augment.draw(11, _seeded(0))
    whole = augment.apply(images, parameters)
    monkeypatch.setattr("patchknn.datasets.augmentation._CPU_PIXELS", 2 * 40 * 40)
    assert torch.equal(augment.apply(images, parameters), whole)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_device_is_never_asked_for_a_number(name):
    # A tensor on this device has no values: whatever needed one would raise.
    augment = Augment(AUGMENTATIONS[name], 32)
    result = augment.apply(_images(4).to("meta"), augment.draw(4, _seeded(0)))
    assert (result.device.type, result.dtype, result.shape) == ("meta", torch.uint8, (4, 3, 32, 32))


def test_nothing_is_the_middle_of_the_image():
    images = _images(3, 40)
    assert torch.equal(Augment(AUGMENTATIONS["none"], 32)(images), images[:, :, 4:36, 4:36])


def test_paper_b_cuts_windows_and_mirrors_half_of_them():
    image = _images(1, 7)
    batch = image.expand(400, -1, -1, -1)
    result = {
        picture.numpy().tobytes()
        for picture in Augment(AUGMENTATIONS["flip"], 4)(batch, _seeded(0))
    }
    straight, mirrored = _windows(image[0], 4), _windows(image[0].flip(2), 4)
    assert result == straight | mirrored
    assert len(result) == 32
    share = [
        picture.numpy().tobytes() in mirrored
        for picture in Augment(AUGMENTATIONS["flip"], 4)(batch, _seeded(1))
    ]
    assert 150 < sum(share) < 250


def test_light_gives_the_eight_orientations_of_the_middle_and_changes_no_pixel():
    image = _images(1, 9)
    batch = image.expand(300, -1, -1, -1)
    result = Augment(AUGMENTATIONS["light"], 5)(batch, _seeded(0))
    middle = image[0, :, 2:7, 2:7]
    eight = {
        torch.rot90(variant, turn, (1, 2)).contiguous().numpy().tobytes()
        for variant in (middle, middle.flip(2))
        for turn in range(4)
    }
    counts = dict.fromkeys(eight, 0)
    for picture in result:
        counts[picture.numpy().tobytes()] += 1  # a KeyError is a picture of none of the eight
    assert min(counts.values()) > 15


def test_a_zoom_keeps_what_is_inside_and_enlarges_it():
    plain = torch.full((8, 3, 32, 32), 77, dtype=torch.uint8)
    zoom = Augment(Augmentation(scale=0.5), 32)
    assert torch.equal(zoom(plain, _seeded(0)), plain)
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).view(1, 1, 1, 32).expand(60, 3, 32, 32)
    span = zoom(ramp, _seeded(0))[:, 0, 0].int()
    share = (span[:, -1] - span[:, 0]) / 248
    assert 0.48 < share.min() < 0.6
    assert 0.9 < share.max() <= 1


def test_strengths_bound_what_is_drawn():
    dim = (_images(200, 8) // 4) + 64  # far from 0 and 255: nothing is clipped
    bright = Augment(Augmentation(brightness=0.2), 8)(dim, _seeded(0)).float()
    factors = bright.mean((1, 2, 3)) / dim.float().mean((1, 2, 3))
    assert 0.79 < factors.min() < 0.82
    assert 1.18 < factors.max() < 1.21
    contrast = Augment(Augmentation(contrast=0.5), 8)(dim, _seeded(0)).float()
    spread = contrast.std((1, 2, 3)) / dim.float().std((1, 2, 3))
    assert 0.49 < spread.min() < 0.55
    assert 1.45 < spread.max() < 1.51
    for change in ({"saturation": 0.5}, {"hue": 0.1}, {"stain_sigma": 0.1}, {"stain_bias": 0.1}):
        changed = Augment(Augmentation(**change), 8)(dim, _seeded(0))
        assert not torch.equal(changed, dim)


def test_a_strong_change_is_cut_at_black_and_white_not_wrapped_around():
    images = torch.tensor([0, 250], dtype=torch.uint8).view(1, 1, 1, 2).expand(40, 3, 2, 2)
    result = Augment(Augmentation(brightness=0.5, contrast=0.9), 2)(images, _seeded(0)).int()
    assert (result[..., 1] >= result[..., 0]).all()
    assert result.max() == 255
    assert result.min() == 0


def test_bare_glass_stays_nearly_white_under_the_stains_of_the_tissue_recipe():
    recipe = AUGMENTATIONS["tissue"]
    stains = Augmentation(stain_sigma=recipe.stain_sigma, stain_bias=recipe.stain_bias)
    white = torch.full((500, 3, 4, 4), 255, dtype=torch.uint8)
    assert Augment(stains, 4)(white, _seeded(0)).min() >= 249


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_recipe_goes_through_json(name):
    recipe = AUGMENTATIONS[name]
    assert Augmentation(**json.loads(json.dumps(recipe._asdict()))) == recipe


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"orientation": "rot"}, "'rot' of an augmentation is unknown; use one of none, flip"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"scale": float("nan")}, "scale nan"),
        ({"brightness": -0.1}, "brightness -0.1"),
        ({"stain_sigma": 1.5}, "stain_sigma 1.5"),
        ({"hue": float("inf")}, "hue inf"),
    ],
)
def test_strengths_that_cannot_be_are_named(wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        Augment(Augmentation(**wrong), 32)


def test_images_smaller_than_the_output_are_refused():
    for recipe in AUGMENTATIONS.values():
        with pytest.raises(ValueError, match="no window of 32 px"):
            Augment(recipe, 32)(_images(2, 30))
