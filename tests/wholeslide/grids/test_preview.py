"""``slide preview``: colours by principal components, the same for all slides of one command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from patchknn.wholeslide.grids.grid import Grid, GridInfo, write_grid
from patchknn.wholeslide.grids.preview import fit_colours, preview, sample_vectors

_INFO = GridInfo("a.svs", 32, 32, 0.5, 0.5, 32.0, (320, 256), "ab" * 32)


def _grid(seed, height=8, width=10, dim=12, name="a.svs"):
    """Two tissues side by side, which differ in all features, and some glass around them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.1, (1, dim, height, width))
    features[..., width // 2 :] += 3
    mask = np.zeros((height, width), bool)
    mask[1:-1, 1:-1] = True
    return Grid(replace(_INFO, name=name), (features * mask).astype(np.float16), mask)


@pytest.fixture
def saved(tmp_path):
    def save(path, grid):
        write_grid(tmp_path / path, grid.info, grid.features, grid.mask)
        return tmp_path / path

    return save


def test_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(n, 6)) * [5, 4, 3, 1, 1, 1] for n in (40, 60)]
    colours = fit_colours([part.astype(np.float32) for part in samples])
    centred = np.concatenate(samples) - np.concatenate(samples).mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((colours.components * directions[:3]).sum(1)), 1, atol=1e-5)
    assert colours.explained == pytest.approx((values[:3] ** 2).sum() / (values**2).sum(), abs=1e-5)
    projected = centred @ np.float64(colours.components).T
    np.testing.assert_allclose(colours.low, np.percentile(projected, 1, axis=0), atol=1e-4)
    shares = (projected - colours.low) / (colours.high - colours.low)
    found = colours.of(np.concatenate(samples))
    assert np.abs(found - shares.clip(0, 1) * 230).max() <= 1


def test_like_tissue_has_like_colours_in_all_slides_and_glass_is_white():
    grids = [_grid(0), _grid(1, 20, 14)]
    rng = np.random.default_rng(0)
    colours = fit_colours([sample_vectors(grid, 1000, rng) for grid in grids])
    pictures = [preview(grid, colours, 3).astype(int) for grid in grids]
    sides = []
    for grid, picture in zip(grids, pictures, strict=True):
        height, width = grid.mask.shape
        assert picture.shape == (3 * height, 3 * width, 3)
        blocks = picture.reshape(height, 3, width, 3, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        small = blocks[:, 0, :, 0]
        assert (small[~grid.mask] == 255).all()
        assert (small[grid.mask] <= 230).all()
        half = width // 2
        sides.append((small[1:-1, 1:half].mean((0, 1)), small[1:-1, half:-1].mean((0, 1))))
    (left, right), (other_left, other_right) = sides
    assert abs(left[0] - right[0]) > 150
    assert max(abs(left[0] - other_left[0]), abs(right[0] - other_right[0])) < 10


def test_a_sample_is_of_different_places_of_tissue():
    grid = _grid(0)
    rng = np.random.default_rng(0)
    vectors = sample_vectors(grid, 20, rng)
    assert len(np.unique(vectors, axis=0)) == len(vectors) == 20
    everything = {tuple(vector) for vector in grid.vectors().astype(np.float32)}
    assert {tuple(vector) for vector in vectors} <= everything
    assert len(sample_vectors(grid, 1000, rng)) == grid.mask.sum()


def test_few_features_or_patches():
    two = fit_colours([np.array([[0.0, 1.0], [2.0, 1.0]], np.float32)])
    first, last = two.of(np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert {first[0], last[0]} == {0, 230}
    assert first[2] == last[2] == 115
    same = fit_colours([np.ones((5, 3), np.float32)])
    assert (same.of(np.ones((2, 3))) == 115).all()
    one = fit_colours([np.ones((1, 3), np.float32), np.zeros((0, 3), np.float32)])
    assert (one.of(np.ones((2, 3))) == 115).all()


def test_a_picture_for_each_grid(patchknn, saved, tmp_path):
    saved("g/deep/one.h5", _grid(0, name="deep/one.svs"))
    saved("g/two.zarr", _grid(1, 20, 14, name="two.svs"))
    result = patchknn("slide", "preview", tmp_path / "g", "-o", tmp_path / "p", "--scale", 4)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert rows[0] == {
        "name": "deep/one.svs", "status": "done", "width": 40, "height": 32,
        "path": str(tmp_path / "p" / "deep" / "one.png"),
    }  # fmt: skip
    assert [Image.open(row["path"]).size for row in rows] == [(40, 32), (56, 80)]
    assert "slide preview: 2 done, 0 failed; colours show" in result.err
    before = [(tmp_path / "p" / name).read_bytes() for name in ("deep/one.png", "two.png")]
    patchknn("slide", "preview", tmp_path / "g", "-o", tmp_path / "p", "--scale", 4)
    assert [(tmp_path / "p" / n).read_bytes() for n in ("deep/one.png", "two.png")] == before


def test_what_cannot_be_drawn_is_said_and_the_rest_is_done(patchknn, saved, tmp_path):
    saved("g/one.h5", _grid(0, name="one.svs"))
    other = _grid(1, name="other.svs")
    saved("g/other.h5", Grid(replace(other.info, encoder="cd" * 32), other.features, other.mask))
    saved("g/same.h5", _grid(1, name="one.tif"))
    (tmp_path / "g" / "text.h5").write_text("no grid")
    (tmp_path / "none").mkdir()
    line = ("slide", "preview", tmp_path / "g", tmp_path / "none", "-o", tmp_path / "p")
    result = patchknn(*line)
    assert result.code == 3
    rows = {row["name"]: row for row in map(json.loads, result.out.splitlines())}
    words = {
        "other.svs": "is of another encoder than",
        "one.tif": "would both be",
        str(tmp_path / "g" / "text.h5"): "is not a grid of patchknn",
        str(tmp_path / "none"): "holds no grid",
    }
    assert rows["one.svs"]["status"] == "done"
    for name, text in words.items():
        assert text in rows[name]["error"]
        assert rows[name]["error"] in result.err
    result = patchknn("slide", "preview", tmp_path / "gone.h5", "-o", tmp_path / "p")
    assert result.code == 1
    assert "slide preview: 0 done, 1 failed." in result.err


def test_too_large_a_picture_is_refused(patchknn, saved, tmp_path):
    wide = _grid(0, 200, 400, dim=1)
    path = saved("wide.h5", wide)
    result = patchknn("slide", "preview", path, "-o", tmp_path / "p", "--scale", 200)
    assert result.code == 1
    assert "80000 × 40000 px; give a smaller --scale" in result.err
