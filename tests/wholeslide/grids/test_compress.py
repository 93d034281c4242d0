"""``slide compress``: each vector is that of its patch by itself, at its place."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchknn.bundle import load_bundle
from patchknn.datasets.images import PatchReader
from patchknn.datasets.patches import Patch
from patchknn.datasets.tiles import PatchSettings
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.remote import RemoteEncoder
from patchknn.jobs.claims import Claims
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide
from patchknn.wholeslide.grids.compress_settings import CompressSettings
from patchknn.wholeslide.grids.grid import list_grids, open_grid
from patchknn.wholeslide.grids.grid_units import make_grid, plan_grids

_HERE = ("--workers", 0, "--device", "cpu")


@pytest.fixture
def compress(patchknn, encoder, tmp_path):
    """Run ``slide compress`` into ``tmp_path/grids``; the result, and its rows by name."""

    def call(*arguments, encoder=encoder, folder="grids"):
        line = ("slide", "compress", *arguments, "-e", encoder, "-o", tmp_path / folder)
        result = patchknn(*line, *_HERE)
        rows = [json.loads(line) for line in result.out.splitlines()]
        return result, {row["name"]: row for row in rows}

    return call


def _turned(pixels, orientation):
    turned = np.rot90(pixels, orientation // 2)
    return np.array(turned[:, ::-1] if orientation % 2 else turned, order="C")


def _assert_each_patch_by_itself(grid, slide, extractor, ulps_apart, *, mpp, some=None):
    """Every vector is what the encoder makes of that patch, read and encoded alone."""
    info = grid.info
    places = grid.places()
    if some is not None:
        places = places[np.random.default_rng(0).permutation(len(places))[:some]]
    with PatchReader(info.patch_px, mpp) as reader:
        for (row, column), (x, y) in zip(places, info.corners(places).tolist(), strict=True):
            patch = Patch("s", slide, "slide", x, y, slide_mpp=info.level0_mpp)
            pixels = reader.read(patch)
            for orientation in range(grid.entries):
                alone = extractor.features(_turned(pixels, orientation)[None])[0]
                stored = grid.features[orientation, :, row, column]
                assert ulps_apart(stored, alone.astype(np.float16)).max() <= 1
    assert not grid.features[:, :, ~grid.mask].any()


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_a_grid_holds_each_patch_by_itself(  # noqa: PLR0917
    compress, write_slide, extractor, ulps_apart, tmp_path, suffix
):
    slide = write_slide("slides/one.tif", size=200)
    options = ("--stride", 24, "--mpp", 0.7, "--augment", 8)
    result, rows = compress(slide, *options, "--format", "hdf5" if suffix == ".h5" else "zarr")
    assert (result.code, result.err) == (
        0,
        "slide compress: 1 done, 0 skipped, 0 empty, 0 failed.\n",
    )
    path = tmp_path / "grids" / f"one{suffix}"
    grid = open_grid(path)
    expected = tile_slide(slide, TilingSettings(32, 24, 0.7), name="one.tif")
    np.testing.assert_array_equal(grid.info.corners(grid.places()), expected.coords)
    _assert_each_patch_by_itself(grid, slide, extractor, ulps_apart, mpp=0.7)
    height, width = grid.mask.shape
    assert rows["one.tif"] == {
        "name": "one.tif", "status": "done", "patches": len(expected), "height": height,
        "width": width, "path": str(path), "detail": None,
    }  # fmt: skip
    # 200 px of 0.5 µm; patches begin every 24 px of 0.7 µm.
    assert (height, width) == (6, 6)
    assert (grid.info.level0_size, grid.info.mpp, grid.entries) == ((200, 200), 0.7, 8)


def test_a_real_slide(compress, shared_data, extractor, ulps_apart, tmp_path):
    slide = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    _, rows = compress(slide)
    grid = open_grid(tmp_path / "grids" / "CMU-1-Small-Region.h5")
    # The slide's 0.499 µm/px are taken to 0.5, which is nearly nothing and yet resampled.
    assert rows[slide.name]["patches"] == grid.mask.sum() > 2000
    _assert_each_patch_by_itself(grid, slide, extractor, ulps_apart, mpp=0.5, some=300)


def test_a_turned_slide_gives_the_turned_grid(compress, write_slide, ulps_apart, tmp_path):
    slide = write_slide("slides/one.tif", size=128)
    pixels = tifffile.imread(slide)[:96]
    for orientation in range(8):
        file = tmp_path / "turned" / f"{orientation}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(_turned(pixels, orientation)).save(file)
    options = ("--augment", 8, "--min-tissue", 0, "--default-mpp", 0.5)
    result, _ = compress(tmp_path / "turned", *options)
    assert result.code == 0, result.err
    grids = [open_grid(tmp_path / "grids" / f"{orientation}.h5") for orientation in range(8)]
    assert grids[0].mask.shape == (3, 4)
    for orientation, grid in enumerate(grids):
        assert ulps_apart(grids[0].turned(orientation), grid.features[0]).max() <= 1
        np.testing.assert_array_equal(grids[0].turned_mask(orientation), grid.mask)


def test_tile_sets_give_the_grids_of_their_slides(compress, write_slide, tmp_path, patchknn):
    slides = [write_slide(f"slides/{name}.tif", seed=seed) for seed, name in enumerate("ab")]
    compress(tmp_path / "slides", "--stride", 16)
    tiles = tmp_path / "tiles"
    line = ("tile", tmp_path / "slides", "-o", tiles, "--size", 32, "--stride", 16)
    assert patchknn(*line).code == 0
    result, rows = compress(tiles, folder="of_tiles")
    assert (result.code, [row["status"] for row in rows.values()]) == (0, ["done"] * 2)
    for name in "ab":
        of_slide = open_grid(tmp_path / "grids" / f"{name}.h5")
        of_tiles = open_grid(tmp_path / "of_tiles" / f"{name}.h5")
        np.testing.assert_array_equal(of_slide.features, of_tiles.features)
        np.testing.assert_array_equal(of_slide.mask, of_tiles.mask)
    _, rows = compress(tiles, folder="of_tiles")
    assert {row["status"] for row in rows.values()} == {"skipped"}
    # Other tiles of the same slide are another setting.
    tileset = tile_slide(slides[0], TilingSettings(32, 16, min_tissue=0.9), name="a.tif")
    write_tileset(tiles / "a.h5", tileset)
    _, rows = compress(tiles, folder="of_tiles")
    statuses = {name: row["status"] for name, row in rows.items()}
    assert statuses == {"a.tif": "done", "b.tif": "skipped"}
    assert rows["a.tif"]["patches"] == len(tileset)


def test_tiles_that_lie_on_no_grid_are_refused(compress, write_slide, tmp_path):
    slide = write_slide("one.tif")
    tileset = tile_slide(slide, TilingSettings(32), name="one.tif")
    tileset.coords[3] += 5
    write_tileset(tmp_path / "one.h5", tileset)
    result, _ = compress(tmp_path / "one.h5")
    assert result.code == 1
    assert "makes no grid" in result.err
    assert "tile the slide again" in result.err


def test_what_is_done_is_skipped_and_a_changed_setting_or_slide_is_done_again(
    compress, write_slide, other_encoder, tmp_path
):
    slide = write_slide("one.tif")

    def status(*options, **other):
        _, rows = compress(slide, *options, **other)
        return rows["one.tif"]["status"]

    grid = tmp_path / "grids" / "one.h5"
    assert status() == "done"
    before = grid.stat().st_mtime_ns
    assert status() == status("--dry-run") == "skipped"
    assert grid.stat().st_mtime_ns == before
    assert status("--stride", 16, "--dry-run") == "planned"
    for change in (
        ("--stride", 16), ("--augment", 8), ("--mpp", 0.6), ("--size", 48), ("--min-tissue", 0.1),
        ("--precision", "bfloat16"), ("--slide-mpp", 0.45),
    ):  # fmt: skip
        assert status(*change) == "done"
        assert status(*change) == "skipped"
    assert status() == "done"
    assert status(encoder=other_encoder) == "done"
    assert status(encoder=other_encoder) == "skipped"
    write_slide("one.tif", seed=5)
    assert status(encoder=other_encoder) == "done"
    write_slide("one.tif", tissue=False)
    assert status() == "empty"
    assert status() == "skipped"
    assert not open_grid(grid).features.any()


def test_one_slide_has_one_grid_whatever_the_format(compress, write_slide, tmp_path):
    slide = write_slide("one.tif")
    compress(slide)
    _, rows = compress(slide, "--format", "zarr")
    assert rows["one.tif"]["status"] == "done"
    assert list_grids(tmp_path / "grids") == [tmp_path / "grids" / "one.zarr"]
    assert compress(slide, "--format", "zarr")[1]["one.tif"]["status"] == "skipped"
    compress(slide)
    assert list_grids(tmp_path / "grids") == [tmp_path / "grids" / "one.h5"]


def test_a_folder_inside_the_slides_is_no_input(compress, write_slide, tmp_path):
    write_slide("slides/deep/one.tif")
    write_slide("slides/two.png")
    for status in ("done", "skipped"):
        result, rows = compress(tmp_path / "slides", "--default-mpp", 0.5, folder="slides/grids")
        assert result.code == 0, result.err
        assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(
            ["two.png", "deep/one.tif"], status
        )


def test_bad_inputs_are_reported_and_the_rest_is_done(compress, patchknn, write_slide, tmp_path):
    slides = tmp_path / "slides"
    one = write_slide("slides/one.tif")
    write_slide("slides/white.tif", tissue=False)
    write_slide("slides/nompp.tif", mpp=None)
    (slides / "half.tif").write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    write_slide("listed.tif")
    table = tmp_path / "patches.csv"
    table.write_text("path,x,y\nlisted.tif,0,0\n")
    result, rows = compress(slides, tmp_path / "gone.svs", table)
    assert result.code == 3
    statuses = {name: row["status"] for name, row in rows.items()}
    words = {
        "nompp.tif": "--default-mpp", "half.tif": "half.tif", "gone.svs": "does not exist",
        "listed.tif": "a grid is made of the whole slide",
    }  # fmt: skip
    assert statuses == {"one.tif": "done", "white.tif": "empty"} | dict.fromkeys(words, "failed")
    for name, text in words.items():
        assert text in rows[name]["error"]
        assert result.err.count(rows[name]["error"]) == 1
    assert rows["white.tif"]["detail"] == "no patch holds 50% tissue"
    assert result.err.splitlines()[-1] == ("slide compress: 1 done, 0 skipped, 1 empty, 4 failed.")
    told = json.loads(patchknn("jobs", "status", tmp_path / "grids").out)
    assert (told["units"], told["done"], told["failed"]) == (6, 2, 4)
    write_slide("slides/half.tif")
    line = (slides, tmp_path / "gone.svs", "--only-failed", "--default-mpp", 0.5)
    result, rows = compress(*line)
    assert {name: row["status"] for name, row in rows.items()} == {
        "nompp.tif": "done", "half.tif": "done", "gone.svs": "failed",
    }  # fmt: skip


def test_features_that_do_not_fit_float16_are_no_grid(compress, write_slide, tmp_path, monkeypatch):
    from patchknn.encoder.inference import FeatureExtractor

    usual = FeatureExtractor.tensor_features
    monkeypatch.setattr(
        FeatureExtractor, "tensor_features", lambda self, images: usual(self, images) * 1e6 + 1e6
    )
    result, _ = compress(write_slide("one.tif"))
    assert result.code == 1
    assert "one.tif: a feature is too large for float16, as grids are" in result.err
    assert [path.name for path in (tmp_path / "grids").iterdir()] == [".jobs"]


def test_an_encoder_that_cannot_be_used_is_said_before_any_slide(compress, write_slide, tmp_path):
    slide = write_slide("one.tif")
    result, _ = compress(slide, "--precision", "float8")
    assert (result.code, result.out) == (2, "")
    assert "--precision float8 is unknown" in result.err
    result, _ = compress(slide, encoder=tmp_path)
    assert result.code == 1
    assert "is not an encoder bundle" in result.err
    assert not (tmp_path / "grids").exists()


def test_another_file_or_slide_is_not_overwritten(compress, write_slide, tmp_path):
    slide = write_slide("one/a.tif")
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "a.h5").write_text("mine")
    result, _ = compress(slide)
    assert (result.code, "is in the way" in result.err) == (1, True)
    assert (tmp_path / "grids" / "a.h5").read_text() == "mine"
    # Of the other format it is in nobody's way.
    assert compress(slide, "--format", "zarr")[0].code == 0
    assert (tmp_path / "grids" / "a.h5").read_text() == "mine"
    other = write_slide("two/a.tif", seed=1)
    result, _ = compress(other, "--format", "zarr")
    assert result.code == 1
    assert str(slide) in result.err
    assert str(other) in result.err


def test_slides_in_the_hands_of_another_process_are_left_to_it(compress, write_slide, tmp_path):
    write_slide("slides/a.tif")
    write_slide("slides/b.tif")
    (tmp_path / "grids").mkdir()
    with Claims(tmp_path / "grids" / ".claims") as other:
        assert other.claim("b.tif")
        result, rows = compress(tmp_path / "slides")
    assert result.code == 0
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.tif": "done", "b.tif": "skipped",
    }  # fmt: skip
    assert "in the hands of" in rows["b.tif"]["detail"]
    assert compress(tmp_path / "slides")[1]["b.tif"]["status"] == "done"


def test_a_moved_slide_and_a_patient_are_put_right_without_the_encoder(
    compress, write_slide, tmp_path, monkeypatch
):
    from patchknn.encoder.inference import FeatureExtractor

    slide = write_slide("one/a.tif")
    compress(slide, "--augment", 8)
    before = open_grid(tmp_path / "grids" / "a.h5")
    features, mask = before.features.copy(), before.mask.copy()
    moved = tmp_path / "moved.tif"
    slide.rename(moved)
    table = tmp_path / "slides.csv"
    table.write_text("path,name,patient\nmoved.tif,a.tif,P3\n")
    monkeypatch.delattr(FeatureExtractor, "tensor_features")
    for detail in (f"moved here from {slide}", None):
        _, rows = compress(table, "--augment", 8)
        assert (rows["a.tif"]["status"], rows["a.tif"]["detail"]) == ("skipped", detail)
        after = open_grid(tmp_path / "grids" / "a.h5")
        assert (after.info.slide, after.info.patient) == (str(moved), "P3")
        np.testing.assert_array_equal(after.features, features)
        np.testing.assert_array_equal(after.mask, mask)


def test_a_unit_may_be_done_in_another_process(encoder, write_slide, compress, tmp_path):
    bundle = load_bundle(encoder)
    slide = write_slide("a.tif")
    settings = CompressSettings(
        PatchSettings(32, 0.5),
        ReadSettings(32, 0.5, workers=2, threads=True),
        RemoteEncoder(encoder, bundle.fingerprint, "cpu", "float32", 1, apart=True),
        bundle.description.feature_dim,
    )
    (unit,) = plan_grids([slide], tmp_path / "elsewhere", settings, ".h5")
    outcome = pickle.loads(pickle.dumps(make_grid(pickle.loads(pickle.dumps(unit)))))
    assert (outcome.status, outcome.count, outcome.result) == ("done", 32, (8, 8))
    compress(slide)
    here, there = (open_grid(tmp_path / name / "a.h5") for name in ("grids", "elsewhere"))
    np.testing.assert_array_equal(here.features, there.features)
