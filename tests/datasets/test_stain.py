"""Stain jitter, against scikit-image's colour deconvolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from patchknn.datasets.stain import HED_LIGHT, HED_STRONG, restain, stain_map

# scikit-image counts stains in units of ln(10⁶).
_UNIT = math.log(1e6)


def _tissue(count=4, size=24, seed=0):
    """Images (B, 3, S, S) of all three stains in any amount, as colours that no step cuts off."""
    stains = np.random.default_rng(seed).uniform(0.1, 1.0, (count, size, size, 3)) / _UNIT
    return np.rint(hed2rgb(stains) * 255).astype(np.uint8)


def _tensor(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _any_image(count=3, size=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def test_one_and_zero_leave_every_colour_as_it_is():
    grid = torch.arange(256, dtype=torch.uint8)
    ramps = torch.stack([grid, grid.flip(0), torch.zeros_like(grid)]).view(1, 3, 16, 16)
    images = torch.cat([ramps, ramps.flip(1), ramps.flip(2)])
    ones, zeros = torch.ones(3, 3), torch.zeros(3, 3)
    assert torch.equal(restain(images, *stain_map(ones, zeros)), images)
    noise = _any_image()
    assert torch.equal(restain(noise, *stain_map(ones, zeros)), noise)


@pytest.mark.parametrize("strength", [HED_LIGHT, HED_STRONG])
def test_stains_are_scaled_and_shifted_as_scikit_image_would(strength):
    generator = np.random.default_rng(3)
    pixels = _tissue()
    alpha = generator.uniform(1 - strength.sigma, 1 + strength.sigma, (len(pixels), 3))
    beta = generator.uniform(0, strength.bias, (len(pixels), 3))  # below 0 scikit-image cuts off
    expected = [
        hed2rgb(rgb2hed(image) * a + b / _UNIT) * 255
        for image, a, b in zip(pixels, alpha, beta, strict=True)
    ]
    result = restain(_tensor(pixels), *stain_map(torch.from_numpy(alpha), torch.from_numpy(beta)))
    assert result.dtype == torch.uint8
    difference = np.abs(result.permute(0, 2, 3, 1).numpy() - np.stack(expected))
    assert difference.max() < 0.51  # nothing but the rounding to 8 bits
    assert np.abs(result.permute(0, 2, 3, 1).numpy().astype(int) - pixels).max() > 2


def test_each_stain_changes_alone():
    pixels = _tissue(1)
    before = rgb2hed(pixels[0])
    for stain in range(3):
        alpha = torch.ones(1, 3)
        alpha[0, stain] = 1.1
        result = restain(_tensor(pixels), *stain_map(alpha, torch.zeros(1, 3)))
        after = rgb2hed(result[0].permute(1, 2, 0).numpy())
        ratio = (after.mean((0, 1)) / before.mean((0, 1))).tolist()
        expected = [1.1 if other == stain else 1.0 for other in range(3)]
        assert ratio == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("strength", "darkest"), [(HED_LIGHT, 228), (HED_STRONG, 162)])
def test_white_is_left_by_scaling_and_darkened_by_bias_no_more_than_documented(strength, darkest):
    white = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    alpha = torch.tensor([[1 + strength.sigma] * 3, [1 - strength.sigma] * 3])
    assert torch.equal(restain(white, *stain_map(alpha, torch.zeros(2, 3))), white)
    beta = torch.tensor([[strength.bias] * 3, [-strength.bias] * 3])
    tinted = restain(white, *stain_map(alpha, beta))
    assert tinted[0].min() == darkest
    assert (tinted[1] == 255).all()
