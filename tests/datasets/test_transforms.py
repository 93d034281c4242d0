"""Augmentation: reproducible, drawn per image, and each part what it says."""

from __future__ import annotations

import colorsys

import numpy as np
import torch

from patchknn.datasets.transforms import TrainingAugmentation

_STILL = {"crop": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def _images(count=16, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_a_seed_reproduces_a_batch_and_another_changes_it():
    augment, images = TrainingAugmentation(), _images()
    once, again = augment(images, _seeded(1)), augment(images, _seeded(1))
    assert torch.equal(once, again)
    assert not torch.equal(once, augment(images, _seeded(2)))
    assert once.dtype == torch.uint8
    assert once.shape == images.shape


def test_orientations_alone_give_the_eight_of_the_square_exactly():
    image = _images(1)
    batch = image.expand(200, -1, -1, -1)
    result = TrainingAugmentation(**_STILL)(batch, _seeded(0))
    eight = {
        torch.rot90(variant, turn, (1, 2)).numpy().tobytes()
        for variant in (image[0], image[0].flip(2))
        for turn in range(4)
    }
    assert {picture.numpy().tobytes() for picture in result} == eight


def test_a_crop_keeps_what_is_inside():
    plain = torch.full((8, 3, 32, 32), 77, dtype=torch.uint8)
    augment = TrainingAugmentation(**{**_STILL, "crop": 0.5})
    assert torch.equal(augment(plain, _seeded(0)), plain)


def test_each_colour_change_does_what_its_name_says():
    image = _images(1).expand(50, -1, -1, -1)
    grey = torch.tensor([0.299, 0.587, 0.114])

    def luma(values):
        return torch.einsum("bchw,c->bhw", values.float(), grey)

    dim = (image // 4) + 64  # far from 0 and 255: nothing is clipped
    bright = TrainingAugmentation(**{**_STILL, "brightness": 0.2})(dim, _seeded(0)).float()
    factors = bright.mean((1, 2, 3)) / dim.float().mean((1, 2, 3))
    assert 0.79 < factors.min() < 0.9
    assert 1.1 < factors.max() < 1.21
    contrast = TrainingAugmentation(**{**_STILL, "contrast": 0.5})(dim, _seeded(0))
    torch.testing.assert_close(
        luma(contrast).mean((1, 2)), luma(dim).mean((1, 2)), atol=0.5, rtol=0
    )
    assert luma(contrast).std((1, 2)).max() > 1.3 * luma(dim).std((1, 2)).max()
    saturation = TrainingAugmentation(**{**_STILL, "saturation": 0.5})(dim, _seeded(0))
    spread = (saturation.float().amax(1) - saturation.float().amin(1)).mean((1, 2))
    assert spread.max() > 1.2 * spread.min()
    torch.testing.assert_close(
        luma(saturation).mean((1, 2)), luma(dim).mean((1, 2)), atol=0.5, rtol=0
    )


def test_hue_turns_the_colour_and_leaves_the_luma():
    red = torch.tensor([150, 100, 100], dtype=torch.uint8).view(1, 3, 1, 1).expand(60, 3, 4, 4)
    result = TrainingAugmentation(**{**_STILL, "hue": 0.1})(red, _seeded(0))[:, :, 0, 0]
    hues = np.array([colorsys.rgb_to_hsv(*(pixel / 255).tolist())[0] for pixel in result.double()])
    turned = np.minimum(hues, 1 - hues)
    assert turned.max() > 0.05
    luma = result.float() @ torch.tensor([0.299, 0.587, 0.114])
    assert float(luma.max() - luma.min()) < 2.0
