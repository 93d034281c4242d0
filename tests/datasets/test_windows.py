"""Windows and orientations against NumPy's flips; zooms against a literal interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchknn.datasets.windows import (
    centre_window,
    oriented_windows,
    window_corners,
    zoomed,
)


def _images(count, height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_windows_are_cut_flipped_and_turned_as_numpy_does_it():
    images = _images(8, 9, 12)
    corners = torch.tensor([[0, 0], [3, 6], [1, 2], [0, 6], [3, 0], [2, 2], [1, 5], [2, 0]])
    moved = oriented_windows(images, 6, corners, torch.arange(8)).numpy()
    for number, (y, x) in enumerate(corners.tolist()):
        expected = images[number, :, y : y + 6, x : x + 6].numpy()
        if number & 4:
            expected = expected.transpose(0, 2, 1)
        if number & 2:
            expected = expected[:, ::-1] if not number & 4 else expected[:, :, ::-1]
        if number & 1:
            expected = expected[:, :, ::-1] if not number & 4 else expected[:, ::-1]
        np.testing.assert_array_equal(moved[number], expected)


def test_the_eight_orientations_are_those_of_the_square():
    image = _images(1, 5, 5)
    moved = oriented_windows(
        image.expand(8, -1, -1, -1), 5, torch.zeros(8, 2, dtype=torch.int64), torch.arange(8)
    )
    eight = {
        torch.rot90(variant, turn, (1, 2)).numpy().tobytes()
        for variant in (image[0], image[0].flip(2))
        for turn in range(4)
    }
    assert {picture.numpy().tobytes() for picture in moved} == eight


def test_every_place_of_a_window_is_as_likely_and_none_is_outside():
    place = torch.linspace(0, 1, 12_001)[:-1, None].expand(-1, 2)
    corners = window_corners(_images(1, 10, 7), 5, place)
    assert torch.bincount(corners[:, 0]).tolist() == [2000] * 6
    assert torch.bincount(corners[:, 1]).tolist() == [4000] * 3
    highest = torch.tensor([[1 - 1e-12, 1.0]], dtype=torch.float64).float()
    assert window_corners(torch.empty(1, 3, 256, 255), 224, highest).tolist() == [[32, 31]]


@pytest.mark.parametrize(("side", "first"), [(8, 0), (9, 0), (10, 1), (11, 1), (12, 2)])
def test_the_centre_is_in_the_middle_or_half_a_pixel_before(side, first):
    images = _images(2, side, side + 4)
    window = centre_window(images, 8)
    assert torch.equal(window, images[:, :, first : first + 8, first + 2 : first + 10])


def test_an_image_smaller_than_its_window_is_refused():
    with pytest.raises(ValueError, match="7 × 9 px have no window of 8"):
        centre_window(_images(1, 7, 9), 8)
    with pytest.raises(ValueError, match="7 × 9 px have no window of 8"):
        window_corners(_images(1, 7, 9), 8, torch.zeros(1, 2))


def test_a_zoom_interpolates_the_part_that_it_keeps():
    size = 9
    values = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1.0, 0.5, 0.8])
    shift = torch.tensor([[0.0, 0.0], [0.5, -0.5], [-0.2, 0.1]])  # x, y
    result = zoomed(values, scale, shift)
    torch.testing.assert_close(result[0], values[0])
    for image in range(3):
        span = float(scale[image]) * size
        left = (size - span) / 2 * (1 + float(shift[image, 0]) / max(1 - float(scale[image]), 1e-9))
        top = (size - span) / 2 * (1 + float(shift[image, 1]) / max(1 - float(scale[image]), 1e-9))
        for i in range(size):
            for j in range(size):
                y = min(max(top + (i + 0.5) * span / size - 0.5, 0), size - 1)
                x = min(max(left + (j + 0.5) * span / size - 0.5, 0), size - 1)
                expected = _between(values[image].double().numpy(), y, x)
                np.testing.assert_allclose(result[image, :, i, j], expected, atol=1e-5)


def _between(image, y, x):
    row, column = int(y), int(x)
    below, right = min(row + 1, image.shape[1] - 1), min(column + 1, image.shape[2] - 1)
    down, across = y - row, x - column
    upper = image[:, row, column] * (1 - across) + image[:, row, right] * across
    lower = image[:, below, column] * (1 - across) + image[:, below, right] * across
    return upper * (1 - down) + lower * down
