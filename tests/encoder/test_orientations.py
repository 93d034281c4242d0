"""Views of an image: as many as asked for, all different, a closed set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchknn.encoder.orientations import ORIENTATIONS, orientations


def _views(images, count):
    return [view.numpy() for view in orientations(images, count)]


@pytest.fixture
def images():
    return torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)


@pytest.mark.parametrize("count", ORIENTATIONS)
def test_views_are_all_different_and_the_first_is_the_image(images, count):
    views = _views(images, count)
    assert len(views) == len({view.tobytes() for view in views}) == count
    np.testing.assert_array_equal(views[0], images)


@pytest.mark.parametrize("count", ORIENTATIONS)
def test_a_view_has_the_same_views(images, count):
    expected = {view.tobytes() for view in _views(images, count)}
    for view in orientations(images, count):
        assert {other.tobytes() for other in _views(view, count)} == expected


def test_two_are_left_and_right_four_are_turns(images):
    np.testing.assert_array_equal(_views(images, 2)[1], images.numpy()[..., ::-1])
    turns = {np.rot90(images.numpy(), n, (2, 3)).tobytes() for n in range(4)}
    assert {view.tobytes() for view in _views(images, 4)} == turns
