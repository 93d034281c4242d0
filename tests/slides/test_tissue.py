"""Tissue is found on glass, on blank slides and on slides that are nothing but tissue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from patchknn.slides.readers import open_slide
from patchknn.slides.tissue import (
    MAX_THRESHOLD,
    MIN_THRESHOLD,
    close_gaps,
    find_tissue,
    otsu_threshold,
    saturation,
    tissue_mask,
)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(2, 9))))
def test_otsu_cuts_as_well_as_scikit_image(levels):
    if np.unique(levels).size < 2:
        assert otsu_threshold(levels) == 0
        return
    counts = np.bincount(levels.ravel(), minlength=256)
    theirs = threshold_otsu(hist=(counts, np.arange(256)))
    ours = round(otsu_threshold(levels) * 255)

    def between(cut):
        low, high = levels[levels <= cut].astype(float), levels[levels > cut].astype(float)
        return low.size * high.size * (low.mean() - high.mean()) ** 2

    assert between(ours) == pytest.approx(between(theirs))


@settings(max_examples=60)
@given(
    mask=arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))),
    width=st.integers(0, 7),
)
def test_closing_is_scipys_with_a_continued_border(mask, width):
    radius = width // 2
    padded = np.pad(mask, radius + 8, mode="edge")
    size = 2 * radius + 1
    closed = ndimage.binary_closing(padded, np.ones((size, size)))
    inner = slice(radius + 8, -radius - 8)
    expected = closed[inner, inner] | mask
    np.testing.assert_array_equal(close_gaps(mask, width), expected)


def test_saturation_is_hsvs_but_black_has_none():
    rgb = np.random.default_rng(0).integers(40, 256, (20, 20, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(rgb).convert("HSV"))[:, :, 1]
    assert np.abs(saturation(rgb).astype(int) - expected).max() <= 1
    assert saturation(np.array([[[0, 0, 29], [0, 0, 31]]], np.uint8)).tolist() == [[0, 255]]


@pytest.mark.parametrize("colour", [(255, 255, 255), (243, 243, 240), (0, 0, 0), (200, 200, 200)])
def test_a_blank_slide_has_no_tissue_with_or_without_noise(colour):
    blank = np.full((60, 60, 3), colour, np.uint8)
    assert not tissue_mask(blank, closing_px=8)[0].any()
    noise = np.random.default_rng(0).normal(0, 2, blank.shape)
    noisy = (blank + noise).clip(0, 255).astype(np.uint8)
    assert not tissue_mask(noisy, closing_px=8)[0].any()


def test_a_slide_that_is_all_tissue_is_not_split_in_two():
    generator = np.random.default_rng(0)
    pale, strong = (225, 190, 210), (150, 60, 140)
    half = np.where(generator.random((60, 60, 1)) < 0.5, pale, strong)
    rgb = (half + generator.normal(0, 2, half.shape)).clip(0, 255).astype(np.uint8)
    mask, threshold = tissue_mask(rgb, closing_px=0)
    assert threshold == MAX_THRESHOLD
    assert mask.mean() > 0.99


def test_tissue_on_glass_is_found_and_otsu_stays_within_its_limits(write_slide, tissue_image):
    with open_slide(write_slide("a.tif", tissue_image, mpp=2.0, levels=(1,))) as slide:
        tissue = find_tissue(slide)
    assert tissue.mpp == 8.0
    assert MIN_THRESHOLD <= tissue.threshold <= MAX_THRESHOLD
    area = np.pi * 0.35**2 * 1280 / 1536
    assert tissue.mask.mean() == pytest.approx(area, rel=0.06)
    assert tissue.mask[80 * 2, 96 * 2]
    assert not tissue.mask[:20].any()


@pytest.mark.parametrize("levels", [(1, 2), (1, 4), (1, 2, 4, 8)])
def test_tissue_does_not_hang_on_the_pyramid(write_slide, tissue_image, levels):
    masks = []
    for name, pyramid in (("flat.tif", (1,)), ("deep.tif", levels)):
        with open_slide(write_slide(name, tissue_image, mpp=1.0, levels=pyramid)) as slide:
            masks.append(find_tissue(slide).mask)
    assert masks[0].shape == masks[1].shape
    assert (masks[0] != masks[1]).mean() < 0.005


def test_gaps_narrower_than_64_um_close_and_wider_ones_do_not(write_slide):
    rgb = np.full((400, 1200, 3), 245, np.uint8)
    rgb[:, :] = (200, 120, 170)
    rgb[:, 300:340] = 245  # 40 µm
    rgb[:, 700:860] = 245  # 160 µm
    with open_slide(write_slide("a.tif", rgb, mpp=1.0, levels=(1,))) as slide:
        mask = find_tissue(slide).mask
    assert mask[:, 300 // 8 : 340 // 8].all()
    assert not mask[:, 704 // 8 + 1 : 856 // 8 - 1].any()


def test_real_tiles_full_of_tissue_stay_whole(shared_data):
    folder = shared_data / "nct_crc" / "NCT-CRC-HE-100K"
    for name in ("DEB", "LYM", "MUS", "NORM", "STR"):
        with open_slide(next((folder / name).glob("*.tif")), slide_mpp=0.5) as slide:
            assert find_tissue(slide).mask.mean() > 0.98, name
    with open_slide(next((folder / "BACK").glob("*.tif")), slide_mpp=0.5) as slide:
        assert find_tissue(slide).mask.mean() < 0.02
