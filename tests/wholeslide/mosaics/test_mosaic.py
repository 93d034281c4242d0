"""Which patches stand for a slide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.errors import UsageError
from patchknn.wholeslide.mosaics import mosaic
from patchknn.wholeslide.mosaics.mosaic import (
    MosaicSettings,
    choose_mosaic,
    parse_size,
    spatial_bins,
)


def _grid(side):
    places = np.arange(side * side)
    return np.stack([places % side, places // side], axis=1)


def test_every_tissue_is_represented_in_proportion_and_all_over_the_slide():
    rng = np.random.default_rng(0)
    coords = _grid(40)
    tissue = np.where(coords[:, 0] < 30, 0, 1)  # three quarters, one quarter
    features = np.array([[0.0, 9.0], [9.0, 0.0]])[tissue] + rng.normal(size=(1600, 2)) * 0.1
    rows = choose_mosaic(features, coords, MosaicSettings(share=0.05, clusters=2))
    assert len(rows) == 80
    assert np.bincount(tissue[rows]).tolist() == [60, 20]
    quarters = coords[rows] // 20
    counts = np.bincount(2 * quarters[:, 0] + quarters[:, 1])
    assert counts.min() >= 16  # of 20 that a quarter of the slide would have


def test_of_each_bin_the_patch_is_taken_that_is_most_like_its_cluster():
    rng = np.random.default_rng(1)
    features, coords = rng.normal(size=(50, 3)), rng.integers(0, 999, (50, 2))
    (row,) = choose_mosaic(features, coords, MosaicSettings(number=1, clusters=9))
    away = np.linalg.norm(features - features.mean(axis=0), axis=1)
    assert row == away.argmin()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 12),
    st.one_of(st.none(), st.integers(1, 80)),
    st.integers(0, 4),
)
def test_as_many_as_were_asked_for_each_once(seed, n, clusters, number, spread):
    rng = np.random.default_rng(seed)
    features = rng.integers(-spread, spread + 1, (n, 3)).astype(np.float16)
    coords = rng.integers(0, spread + 1, (n, 2))
    settings = MosaicSettings(share=0.3, number=number, clusters=clusters)
    rows = choose_mosaic(features, coords, settings)
    assert len(rows) == settings.size_of(n) == len(set(rows.tolist()))
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows.min() <= rows.max() < n
    assert np.array_equal(rows, choose_mosaic(features, coords, settings))


def test_a_large_slide_is_clustered_by_a_sample(monkeypatch):
    monkeypatch.setattr(mosaic, "_FIT_ROWS", 30)
    monkeypatch.setattr(mosaic, "_BLOCK_ROWS", 7)
    tissue = np.arange(300) % 3
    features = np.eye(3)[tissue] * 5 + np.random.default_rng(0).normal(size=(300, 3)) * 0.1
    rows = choose_mosaic(features, _grid(18)[:300], MosaicSettings(number=9, clusters=3))
    assert np.bincount(tissue[rows]).tolist() == [3, 3, 3]


@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.data())
def test_bins_hold_the_same_number(seed, n, data):
    count = data.draw(st.integers(1, n))
    coords = np.random.default_rng(seed).integers(0, 9, (n, 2))
    sizes = np.bincount(spatial_bins(coords, count), minlength=count)
    assert len(sizes) == count
    assert sizes.min() >= 1
    assert sizes.max() <= 2 * sizes.min() + 1


def test_bins_are_places():
    coords = np.array([[0, 0], [1, 0], [100, 0], [101, 0], [0, 50], [1, 50], [100, 50], [101, 50]])
    bins = spatial_bins(coords, 4).tolist()
    assert [bins[i] == bins[i + 1] for i in (0, 2, 4, 6)] == [True] * 4
    assert len(set(bins)) == 4


@pytest.mark.parametrize(
    ("text", "expected"), [("5%", (0.05, None)), (" 2.5 %", (0.025, None)), ("60", (0.05, 60))]
)
def test_sizes_are_shares_or_numbers(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-3", "five", "0.05", ""])
def test_other_sizes_are_refused(text):
    with pytest.raises(UsageError, match="give a share of a slide's patches, as 5%"):
        parse_size(text)
