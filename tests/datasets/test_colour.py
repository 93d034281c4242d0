"""Colour changes: each does what its name says, and nothing else."""

from __future__ import annotations

import colorsys

import pytest
import torch

from patchknn.datasets.channels import mix_channels
from patchknn.datasets.colour import colour_matrix, with_contrast

_LUMA = torch.tensor([0.299, 0.587, 0.114])


def _images(count=3):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255


def _changed(images, brightness=1.0, saturation=1.0, hue=0.0):
    count = len(images)
    factors = (torch.full((count,), value) for value in (brightness, saturation, hue))
    return mix_channels(images, colour_matrix(*factors).float())


def _luma(images):
    return torch.einsum("bchw,c->bhw", images, _LUMA)


def test_brightness_is_a_factor():
    images = _images()
    torch.testing.assert_close(_changed(images, brightness=1.2), images * 1.2)
    torch.testing.assert_close(_changed(images), images, atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_saturation_scales_the_distance_from_grey(factor):
    images = _images()
    grey = _luma(images)[:, None]
    expected = grey + factor * (images - grey)
    torch.testing.assert_close(_changed(images, saturation=factor), expected, atol=1e-3, rtol=1e-5)


def test_hue_turns_the_colour_and_leaves_grey_and_luma():
    red = torch.tensor([150.0, 100.0, 100.0]).view(1, 3, 1, 1)
    turned = _changed(red, hue=0.1)
    assert abs(float(_luma(turned) - _luma(red))) < 0.5
    hue = colorsys.rgb_to_hsv(*(turned.flatten() / 255).tolist())[0]
    assert 0.05 < min(hue, 1 - hue) < 0.15
    back = colorsys.rgb_to_hsv(*(_changed(red, hue=-0.1).flatten() / 255).tolist())[0]
    assert (hue < 0.5) != (back < 0.5)
    grey = torch.full((1, 3, 1, 1), 90.0)
    torch.testing.assert_close(_changed(grey, hue=0.2), grey, atol=0.1, rtol=0)


def test_contrast_is_about_the_mean_grey_of_the_image_after_the_other_changes():
    images = _images()
    matrix = colour_matrix(torch.full((3,), 1.1), torch.full((3,), 0.8), torch.zeros(3)).float()
    factors = torch.tensor([0.5, 1.0, 1.5])
    before = mix_channels(images, matrix)
    after = mix_channels(images, *with_contrast(images, matrix, factors))
    for image, factor in enumerate(factors.tolist()):
        mean = _luma(before)[image].double().mean().float()
        expected = mean + factor * (before[image] - mean)
        torch.testing.assert_close(after[image], expected, atol=1e-3, rtol=1e-5)
