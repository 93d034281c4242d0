"""The tile-set file: what goes in comes out, also by the peers' way of reading it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from patchknn.errors import InputError
from patchknn.slides.tileset import TileSet, read_tileset, write_tileset

TILES = TileSet(
    name="folder/né😐.svs",
    slide=Path("/data/folder/né😐.svs"),
    coords=np.array([[0, 0], [448, 0], [2**33, 17]], dtype=np.int64),
    patch_size=224,
    patch_size_level0=448,
    patch_level=0,
    target_mpp=0.5,
    level0_mpp=0.25,
    level0_magnification=40.0,
    target_magnification=20.0,
    level0_width=100_000,
    level0_height=80_000,
    overlap=0,
    reader="openslide",
    reader_version="4.0.1",
    tissue_method="otsu",
    custom_downsample=2.0,
    tissue=np.array([1.0, 0.5, 0.75], dtype=np.float32),
    labels=("TUM", None, "né"),
    patient="P 1",
    settings={"size": 224, "label": None},
    notes=("a sentence.",),
)


def _same(one: TileSet, other: TileSet) -> None:
    for field in fields(TileSet):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs, field.name


def test_a_tile_set_comes_back_as_it_was(tmp_path):
    write_tileset(tmp_path / "deep" / "a.h5", TILES)
    _same(TILES, read_tileset(tmp_path / "deep" / "a.h5"))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.h5"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    coords=st.integers(0, 12).flatmap(
        lambda n: arrays(np.int64, (n, 2), elements=st.integers(-(2**40), 2**40))
    ),
    label=st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    patient=st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
def test_any_tiles_come_back(tmp_path, coords, label, patient):
    tiles = replace(
        TILES, coords=coords, labels=(label,) * len(coords), tissue=None, patient=patient
    )
    write_tileset(tmp_path / "a.h5", tiles)
    _same(tiles, read_tileset(tmp_path / "a.h5"))


def test_trident_and_clam_find_what_they_look_for(tmp_path):
    write_tileset(tmp_path / "a.h5", TILES)
    with h5py.File(tmp_path / "a.h5") as file:
        # As TRIDENT's read_coords and CLAM's Whole_Slide_Bag_FP do.
        attributes, coords = dict(file["coords"].attrs), file["coords"][:]
        patch_level, patch_size = file["coords"].attrs["patch_level"], attributes["patch_size"]
    assert coords.dtype == np.int64
    for key in ("level0_magnification", "target_magnification", "overlap", "name"):
        assert attributes.get(key) is not None
    ratio = attributes["level0_magnification"] / attributes["target_magnification"]
    assert round(patch_size * ratio) == attributes["patch_size_level0"]
    assert (int(patch_level), attributes["custom_downsample"]) == (0, 2.0)


def test_what_is_no_tile_set_is_one_sentence(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(InputError, match="does not exist"):
        read_tileset(path)
    path.write_text("text")
    with pytest.raises(InputError, match=r"a\.h5 is not a tile set"):
        read_tileset(path)
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(InputError, match=r"a\.h5 is not a tile set"):
        read_tileset(path)
    write_tileset(path, TILES)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.h5 is not a tile set"):
        read_tileset(path)
    write_tileset(path, TILES)
    with h5py.File(path, "a") as file:
        del file["label"]
        file["label"] = ["a"]
    with pytest.raises(InputError, match="label holds 1"):
        read_tileset(path)
    with h5py.File(path, "a") as file:
        file.attrs["patchknn_format"] = 99
    with pytest.raises(InputError, match="update patchknn"):
        read_tileset(path)
