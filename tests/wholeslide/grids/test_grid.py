"""Grid files: what is written is read back, by patchknn and by h5py and zarr alike."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.encoder.orientations import orientations
from patchknn.errors import InputError
from patchknn.wholeslide.grids import grid_writer
from patchknn.wholeslide.grids.grid import (
    Grid,
    GridInfo,
    GridWriter,
    list_grids,
    open_grid,
    write_grid,
)

INFO = GridInfo(
    name="deep/one.svs",
    patch_px=128,
    stride_px=64,
    mpp=0.5,
    level0_mpp=0.2527,
    level0_step=64 * 0.5 / 0.2527,
    level0_size=(1000, 700),
    encoder="ab" * 32,
    precision="bfloat16",
    patient="P7 😐",
    slide="/slides/one.svs",
    settings={"stride": 64, "default_mpp": None},
)


def _content(entries=1, dim=3, height=4, width=5, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < 0.4
    features = rng.normal(size=(entries, dim, height, width)).astype(np.float16)
    return features * mask, mask


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
@pytest.mark.parametrize("entries", [1, 8])
def test_what_is_written_is_read_back(tmp_path, suffix, entries):
    features, mask = _content(entries)
    path = tmp_path / "deep" / f"one{suffix}"
    write_grid(path, INFO, features, mask)
    grid = open_grid(path)
    assert grid.info == INFO
    assert grid.entries == entries
    assert grid.features.dtype == np.float16
    np.testing.assert_array_equal(grid.features, features)
    np.testing.assert_array_equal(grid.mask, mask)
    np.testing.assert_array_equal(grid.places(), np.argwhere(mask))
    expected = [features[0, :, row, column] for row, column in np.argwhere(mask)]
    np.testing.assert_array_equal(grid.vectors(), expected)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_programs_read_it(tmp_path):
    features, mask = _content(8)
    for suffix in (".h5", ".zarr"):
        write_grid(tmp_path / f"one{suffix}", INFO, features, mask)
    with h5py.File(tmp_path / "one.h5") as file:
        np.testing.assert_array_equal(file["features"][:], features)
        np.testing.assert_array_equal(file["mask"][:], mask)
        assert file.attrs["mpp"] == 0.5
        assert list(file.attrs["level0_size"]) == [1000, 700]
    group = zarr.open_group(tmp_path / "one.zarr", mode="r")
    np.testing.assert_array_equal(group["features"][:], features)
    np.testing.assert_array_equal(group["mask"][:], mask)
    assert group.attrs["encoder"] == INFO.encoder


@settings(max_examples=40)
@given(data=st.data())
def test_places_in_any_order_and_blocks_of_any_length(tmp_path_factory, data):
    entries, dim = data.draw(st.sampled_from([1, 8])), data.draw(st.integers(1, 3))
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    numbers = data.draw(st.lists(st.integers(0, height * width - 1), unique=True))
    room = data.draw(st.integers(1, 40))
    parts = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(len(numbers))
    vectors = rng.normal(size=(len(numbers), entries, dim)).astype(np.float16)
    places = np.stack(np.divmod(np.array(numbers, np.int64), width), axis=1).reshape(-1, 2)
    path = tmp_path_factory.mktemp("grid") / "one.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_writer, "_BLOCK_BYTES", room * 2 * entries * dim)
        with GridWriter(path, INFO, (entries, dim, height, width)) as writer:
            for start in range(0, max(len(numbers), 1), parts):
                writer.add(places[start : start + parts], vectors[start : start + parts])
    expected = np.zeros((entries, dim, height, width), np.float16)
    for (row, column), vector in zip(places, vectors, strict=True):
        expected[:, :, row, column] = vector
    grid = open_grid(path)
    np.testing.assert_array_equal(grid.features, expected)
    assert sorted(map(tuple, grid.places())) == sorted(map(tuple, places))


def test_turning_the_grid_is_turning_the_slide():
    # An "encoder" that sees which way round a patch lies: its four corner pixels.
    rng = np.random.default_rng(3)
    height, width, side = 3, 4, 5
    slide = rng.normal(size=(height * side, width * side)).astype(np.float16)

    def patches(image):
        rows, columns = (length // side for length in image.shape)
        return image.reshape(rows, side, columns, side).transpose(0, 2, 1, 3)

    def encode(patch):
        return patch[..., [0, 0, -1, -1], [0, -1, 0, -1]]

    views = orientations(torch.from_numpy(patches(slide).reshape(-1, 1, side, side).copy()), 8)
    entries = [encode(view.numpy()[:, 0]).reshape(height, width, 4) for view in views]
    mask = np.zeros((height, width), bool)
    mask[0] = mask[1, 0] = True
    grid = Grid(INFO, np.stack(entries).transpose(0, 3, 1, 2), mask)
    whole = list(orientations(torch.from_numpy(slide[None, None].copy()), 8))
    for orientation, image in enumerate(whole):
        expected = encode(patches(image.numpy()[0, 0])).transpose(2, 0, 1)
        np.testing.assert_array_equal(grid.turned(orientation), expected)
    turned = torch.from_numpy(mask[None, None].copy())
    for orientation, image in enumerate(orientations(turned, 8)):
        np.testing.assert_array_equal(grid.turned_mask(orientation), image.numpy()[0, 0])


def test_an_orientation_that_is_not_there():
    grid = Grid(INFO, *_content(1))
    np.testing.assert_array_equal(grid.turned(0), grid.features[0])
    with pytest.raises(ValueError, match="has 1 of the eight"):
        grid.turned(1)


def test_corners_of_places_and_back():
    places = np.array([[0, 0], [0, 1], [2, 0], [3, 7]])
    corners = INFO.corners(places)
    # 64 px of 0.5 µm are 126.63 px of 0.2527 µm.
    assert corners.tolist() == [[0, 0], [127, 0], [0, 253], [886, 380]]
    assert INFO.level0_patch == pytest.approx(128 / 64 * 126.63, abs=0.01)
    np.testing.assert_array_equal(INFO.places_of(corners), places)
    with pytest.raises(ValueError, match="do not lie every"):
        INFO.places_of(np.array([[60, 0]]))


def test_nothing_appears_of_what_failed(tmp_path):
    features, mask = _content()
    path = tmp_path / "one.h5"
    mask[0, 0] = True
    write_grid(path, INFO, features, mask)
    features[0, 0, 0, 0] = np.inf
    for suffix in (".h5", ".zarr"):
        with pytest.raises(ValueError, match="too large for float16"):
            write_grid(path.with_suffix(suffix), INFO, features, mask)
    assert [p.name for p in tmp_path.iterdir()] == ["one.h5"]
    assert open_grid(path).features[0, 0, 0, 0] != np.inf


def test_a_full_disk(tmp_path, little_room):
    features, mask = _content(8, 64, 40, 40)
    with little_room(100_000), pytest.raises(OSError, match=r"one\.h5"):
        write_grid(tmp_path / "one.h5", INFO, features, mask)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_a_grid_takes_the_place_of_an_earlier_one(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    for seed in range(2):
        features, mask = _content(seed=seed, height=4 - seed)
        write_grid(path, INFO, features, mask)
    np.testing.assert_array_equal(open_grid(path).features, features)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_damage_is_named(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    with pytest.raises(InputError, match="does not exist"):
        open_grid(path)
    write_grid(path, INFO, *_content(8, 64, 40, 40))
    file = path if suffix == ".h5" else path / "features" / "c" / "0" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(InputError, match="is not a grid of patchknn, or is damaged"):
        open_grid(path)


def test_other_files_are_no_grids(tmp_path):
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["coords"] = np.zeros((3, 2))
    with pytest.raises(InputError, match="is not a grid of patchknn"):
        open_grid(tmp_path / "tiles.h5")
    write_grid(tmp_path / "new.h5", INFO, *_content())
    with h5py.File(tmp_path / "new.h5", "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(InputError, match="update patchknn"):
        open_grid(tmp_path / "new.h5")


def test_grids_below_a_folder(tmp_path):
    with pytest.raises(InputError, match="holds no grid"):
        list_grids(tmp_path)
    for name in ("b.h5", "deep/a.zarr", ".hidden/c.h5", ".tmp-0123456789ab-d.h5"):
        write_grid(tmp_path / name, INFO, *_content())
    expected = [tmp_path / "b.h5", tmp_path / "deep" / "a.zarr"]
    assert list_grids(tmp_path) == expected
    assert [list_grids(path) for path in expected] == [[path] for path in expected]


def test_what_has_no_tissue_takes_no_room_and_memory_is_for_a_block(tmp_path):
    path = tmp_path / "wide.h5"
    tracemalloc.start()
    try:
        with GridWriter(path, INFO, (8, 64, 1000, 1000)) as writer:
            for row in (0, 500, 999):
                writer.add(np.array([[row, 500]]), np.ones((1, 8, 64), np.float32))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert path.stat().st_size > 8 * 64 * 1e6 * 2
    assert path.stat().st_blocks * 512 < path.stat().st_size / 10
    for row in (0, 500, 999):
        assert open_grid(path).features[:, :, row, 500].tolist() == [[1.0] * 64] * 8
    assert open_grid(path).mask.sum() == 3
