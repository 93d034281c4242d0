"""A large canvas in bands: whole, without seams, and none of it kept longer than needed."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.simulate import mosaic
from patchknn.simulate.canvas import Layer, Site, Stains


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic, "_TILE_PX", 64)
    monkeypatch.setattr(mosaic, "_OVERLAP_PX", 16)


@pytest.mark.parametrize("size", [64, 80, 81, 200, 333])
@pytest.mark.usefixtures("small_pieces")
def test_bands_cover_every_row_once_and_weights_add_up_to_one(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def even(site: Site, *, lymphocytes: bool) -> Stains:
        sizes.append(max(site.height, site.width))
        assert not lymphocytes
        return Stains(site.blank() + 1, site.blank() + 2)

    monkeypatch.setattr(mosaic, "stroma", even)
    bands = list(mosaic.stroma_bands(size, 0.5, np.random.default_rng(0)))
    tops = np.cumsum([0] + [len(band.eosin) for _, band in bands])
    assert [top for top, _ in bands] == tops[:-1].tolist()
    assert tops[-1] == size
    for _, band in bands:
        assert band.haematoxylin.shape[1] == size
        assert np.allclose(band.haematoxylin, 1, atol=1e-6)
        assert np.allclose(band.eosin, 2, atol=1e-6)
    assert max(sizes) <= 64 + 2 * 16


@pytest.mark.usefixtures("small_pieces")
def test_no_row_or_column_stands_out_as_a_seam() -> None:
    bands = mosaic.stroma_bands(256, 0.5, np.random.default_rng(1))
    eosin = np.concatenate([band.eosin for _, band in bands])
    for axis in (0, 1):
        steps = np.abs(np.diff(eosin, axis=axis)).mean(axis=1 - axis)
        assert steps.max() < 2 * np.median(steps)


def test_rows_of_a_layer_are_those_of_the_whole() -> None:
    site = Site(90, 70, 0.5, np.random.default_rng(0))
    layer = Layer(site)
    for _ in range(30):
        layer.polygon(site.rng.uniform(0, 80, 8).tolist(), float(site.rng.uniform(0.5, 2)))
    whole = layer.amounts()
    parts = [layer.amounts(rows=rows) for rows in ((0, 30), (30, 31), (31, 90))]
    assert np.array_equal(np.concatenate(parts), whole)
