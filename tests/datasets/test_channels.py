"""The affine map of channels, against a literal product in float64."""

from __future__ import annotations

import numpy as np
import torch

from patchknn.datasets.channels import mix_channels


def test_every_pixel_is_mapped_by_its_own_images_matrix():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(5, 3, 7, 9, generator=generator) * 255
    matrix = torch.randn(5, 3, 3, generator=generator)
    offset = torch.randn(5, 3, generator=generator)
    mixed = mix_channels(values, matrix, offset)
    linear = mix_channels(values, matrix)
    for image in range(5):
        for y in range(7):
            for x in range(9):
                pixel = matrix[image].double().numpy() @ values[image, :, y, x].double().numpy()
                np.testing.assert_allclose(linear[image, :, y, x], pixel, rtol=1e-4, atol=1e-3)
                pixel += offset[image].numpy()
                np.testing.assert_allclose(mixed[image, :, y, x], pixel, rtol=1e-4, atol=1e-3)
    assert mixed.dtype == torch.float32


def test_memory_in_another_order_gives_the_same():
    values = torch.rand(2, 3, 4, 4)
    matrix = torch.randn(2, 3, 3)
    other = values.contiguous(memory_format=torch.channels_last)
    assert torch.equal(mix_channels(values, matrix), mix_channels(other, matrix))
