"""The grid, the share of tissue, and the tile set of a slide."""

from __future__ import annotations

import json

import numpy as np
import pytest

from patchknn.errors import InputError, UsageError
from patchknn.slides.readers import open_slide
from patchknn.slides.tiling import TilingSettings, tile_grid, tile_slide, tissue_shares
from patchknn.slides.tissue import TissueMask


def test_the_grid_covers_the_slide_row_by_row():
    grid = tile_grid((500, 250), 100.0)
    assert grid.dtype == np.int64
    assert grid[:6].tolist() == [[0, 0], [100, 0], [200, 0], [300, 0], [400, 0], [0, 100]]
    assert len(grid) == 15
    assert tile_grid((7, 3), 100.0).tolist() == [[0, 0]]


def test_a_fractional_step_does_not_drift():
    grid = tile_grid((100_000, 1), 224.449)
    assert np.abs(grid[:, 0] - np.arange(len(grid)) * 224.449).max() <= 0.5


def test_tissue_shares_equal_a_literal_count_on_a_finer_grid():
    mask = np.random.default_rng(0).random((9, 11)) < 0.4
    coords = np.array([[0, 0], [13, 21], [37, 5], [80, 60]])
    shares = tissue_shares(TissueMask(mask, 8.0, 0.1), coords, 30.0, 1.0)
    fine = np.zeros((200, 200))
    fine[: 9 * 8, : 11 * 8] = np.kron(mask, np.ones((8, 8)))
    for (x, y), share in zip(coords, shares, strict=True):
        assert share == pytest.approx(fine[y : y + 30, x : x + 30].mean(), abs=1e-6)


def test_a_slide_gives_the_tiles_on_its_tissue(write_slide, tissue_image):
    path = write_slide("a.tif", tissue_image, mpp=0.5, levels=(1, 2))
    tiles = tile_slide(path, TilingSettings(size=64, mpp=1.0), name="a.tif", patient="P1")
    assert tiles.patch_size_level0 == 128
    assert tiles.patch_level == 1
    assert tiles.custom_downsample == pytest.approx(1, rel=1e-4)
    assert (tiles.level0_width, tiles.level0_height) == (1536, 1280)
    assert tiles.level0_magnification / tiles.target_magnification == pytest.approx(2, rel=1e-3)
    assert (tiles.coords % 128 == 0).all()
    y, x = np.mgrid[:1280, :1536]
    disk = np.hypot(y - 640, x - 768) < 0.35 * 1280
    shares = disk.reshape(10, 128, 12, 128).mean(axis=(1, 3))
    surely, maybe = {tuple(t) for t in np.argwhere(shares > 0.55)}, np.argwhere(shares > 0.45)
    found = {(row // 128, column // 128) for column, row in tiles.coords.tolist()}
    assert surely <= found <= {tuple(t) for t in maybe}
    assert (tiles.tissue >= 0.5).all()
    assert tiles.labels is None
    everything = tile_slide(path, TilingSettings(64, mpp=1.0, min_tissue=0.0), name="a.tif")
    assert len(everything) == 12 * 10


def test_stride_makes_tiles_overlap(write_slide, tissue_image):
    path = write_slide("a.tif", tissue_image)
    tiles = tile_slide(path, TilingSettings(64, stride=48, min_tissue=0), name="a.tif")
    assert tiles.overlap == 16
    assert set(np.diff(np.unique(tiles.coords[:, 0]))) == {48}


def test_a_target_finer_than_the_slide_fails_unless_asked_for(write_slide, tissue_image):
    path = write_slide("a.tif", tissue_image, mpp=0.5)
    with pytest.raises(InputError, match=r"a\.tif has 0\.5 µm/px.*--allow-upsample"):
        tile_slide(path, TilingSettings(mpp=0.25), name="a.tif")
    tiles = tile_slide(path, TilingSettings(64, mpp=0.25, allow_upsample=True), name="a.tif")
    assert tiles.patch_size_level0 == 32
    with open_slide(path) as slide:
        assert slide.read_patch(700, 600, 64, 0.25).shape == (64, 64, 3)


def test_scanners_that_differ_by_a_thousandth_are_no_finer_target(write_slide, tissue_image):
    path = write_slide("a.tif", tissue_image, mpp=0.5036)
    assert len(tile_slide(path, TilingSettings(64), name="a.tif"))


def test_a_blank_slide_is_an_empty_tile_set(write_slide):
    path = write_slide("white.tif", np.full((512, 512, 3), 255, np.uint8))
    tiles = tile_slide(path, TilingSettings(64), name="white.tif", label="x")
    assert tiles.coords.shape == (0, 2)
    assert tiles.labels == ()


def test_a_list_label_labels_all_and_annotations_each_tile(write_slide, tissue_image, tmp_path):
    path = write_slide("a.tif", tissue_image)
    settings = TilingSettings(64, min_tissue=0)
    assert set(tile_slide(path, settings, name="a", label="TUM").labels) == {"TUM"}
    annotations = tmp_path / "a.geojson"
    ring = [[0, 0], [640, 0], [640, 1280], [0, 1280], [0, 0]]
    annotations.write_text(
        json.dumps(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": "left"}},
            }
        )
    )
    tiles = tile_slide(path, settings, name="a", annotations=annotations)
    left = tiles.coords[:, 0] < 640
    assert [label == "left" for label in tiles.labels] == left.tolist()
    labelled = TilingSettings(64, min_tissue=0, labelled=True)
    kept = tile_slide(path, labelled, name="a", annotations=annotations)
    assert kept.coords.tolist() == tiles.coords[left].tolist()
    assert set(kept.labels) == {"left"}
    assert len(tile_slide(path, labelled, name="a")) == 0


def test_settings_that_cannot_be_are_usage_errors():
    for wrong in ({"size": 0}, {"stride": 0}, {"min_tissue": 1.5}, {"min_cover": -1}, {"mpp": 0}):
        with pytest.raises(UsageError):
            TilingSettings(**wrong)


def test_real_slide(shared_data):
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    tiles = tile_slide(path, TilingSettings(), name=path.name)
    assert 40 <= len(tiles) <= 60
    assert tiles.level0_magnification == 20
