"""How small a slide is drawn, and where tiles lie on its picture."""

from __future__ import annotations

import itertools

import numpy as np

from patchknn.slides.overview import overlay_downsample, tile_pixels


def test_large_slides_are_drawn_smaller_by_powers_of_two() -> None:
    assert overlay_downsample(20_000, 20_000, 224) == 224 / 24
    large = overlay_downsample(200_000, 150_000, 448)
    assert np.log2(large / (448 / 24)) == 1
    assert (200_000 / large) * (150_000 / large) <= 24e6


def test_tiles_side_by_side_leave_no_gap_and_stay_on_the_picture() -> None:
    edges = [tile_pixels((90, 100, 3), (37 * n, 0), 37, 3.7 / 1.1) for n in range(12)]
    for (_, right, top, bottom), (left, _, _, _) in itertools.pairwise(edges):
        assert right in {left, 100}
        assert (top, bottom) == (0, 11)
    assert max(right for _, right, _, _ in edges) == 100
