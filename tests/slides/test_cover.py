"""Tiles are labelled by exact cover; shapely is not needed to know the areas used here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.slides.annotations import Region
from patchknn.slides.cover import covered, label_tiles


def box(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def region(label, *rings):
    return Region(label, rings)


TILE = np.array([[0, 0]])


def test_boxes_cover_their_share():
    assert covered([region("a", box(0, 0, 100, 100))], TILE, 100) == [pytest.approx(1)]
    assert covered([region("a", box(-50, -50, 25, 500))], TILE, 100) == [pytest.approx(0.25)]
    assert covered([region("a", box(0, 0, 100, 30))], TILE, 100) == [pytest.approx(0.3, abs=1 / 64)]
    assert covered([region("a", box(200, 0, 300, 30))], TILE, 100) == [0]
    assert covered([], TILE, 100) == [0]


def test_a_triangle_covers_half():
    triangle = np.array([(0, 0), (100, 0), (0, 100)], float)
    assert covered([region("a", triangle)], TILE, 100)[0] == pytest.approx(0.5, abs=1e-6)


def test_holes_are_honoured_and_overlaps_count_once():
    ring = region("a", box(0, 0, 100, 100), box(0, 25, 100, 75))
    assert covered([ring], TILE, 100)[0] == pytest.approx(0.5)
    # Another region fills the hole of the first.
    both = [ring, region("a", box(0, 0, 100, 100))]
    assert covered(both, TILE, 100)[0] == pytest.approx(1)
    twice = [region("a", box(0, 0, 60, 100)), region("a", box(40, 0, 80, 100))]
    assert covered(twice, TILE, 100)[0] == pytest.approx(0.8)
    inside = [region("a", box(0, 0, 60, 100)), region("a", box(10, 0, 20, 100))]
    assert covered(inside, TILE, 100)[0] == pytest.approx(0.6)


@settings(max_examples=40, deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(-50, 250), st.floats(-50, 250)), min_size=3, max_size=8),
    seed=st.integers(0, 99),
)
def test_any_polygon_agrees_with_throwing_darts(corners, seed):
    polygon = np.array(corners)
    tiles = np.array([[0, 0], [100, 0], [0, 100], [100, 100]])
    cover = covered([region("a", polygon)], tiles, 100)
    darts = np.random.default_rng(seed).random((1500, 2)) * 100
    for tile, share in zip(tiles, cover, strict=True):
        points = darts + tile
        assert share == pytest.approx(_inside(polygon, points).mean(), abs=0.07)


def _inside(polygon, points):
    inside = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        spans = (y1 > points[:, 1]) != (y2 > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            x = x1 + (points[:, 1] - y1) * (x2 - x1) / (y2 - y1)
        inside ^= spans & (points[:, 0] < x)
    return inside


def test_the_class_that_covers_most_wins_if_it_covers_enough():
    coords = np.array([[0, 0], [100, 0], [200, 0], [300, 0]])
    regions = [
        region("tumour", box(0, 0, 190, 100)),
        region("stroma", box(190, 0, 260, 100)),
        region("lymphocytes", box(0, 0, 20, 100)),
    ]
    assert label_tiles(regions, coords, 100, 0.75) == ("tumour", "tumour", None, None)
    assert label_tiles(regions, coords, 100, 0.5) == ("tumour", "tumour", "stroma", None)
    assert label_tiles(regions, coords, 100, 0.0) == ("tumour", "tumour", "stroma", None)
    assert label_tiles([], coords, 100, 0.5) == (None,) * 4


def test_a_cover_of_exactly_the_minimum_is_enough():
    assert label_tiles([region("a", box(0, 0, 75, 100))], TILE, 100, 0.75) == ("a",)
    tie = [region("b", box(0, 0, 50, 100)), region("a", box(50, 0, 100, 100))]
    assert label_tiles(tie, TILE, 100, 0.5) == ("a",)
