"""Tiles as an ImageFolder: the very pixels that the reader gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from patchknn.slides.export import folder_of, write_images
from patchknn.slides.images import read_image
from patchknn.slides.readers import open_slide
from patchknn.slides.tiling import TilingSettings, tile_slide


@pytest.fixture
def tiles(write_slide, tissue_image):
    path = write_slide("a.tif", tissue_image)
    return tile_slide(path, TilingSettings(size=128, mpp=0.9), name="a.tif")


def test_png_tiles_are_what_read_patch_gives(tiles, tmp_path):
    write_images(tiles, tmp_path / "out", "png")
    files = sorted(tmp_path.glob("out/*.png"))
    assert len(files) == len(tiles)
    with open_slide(tiles.slide) as slide:
        for x, y in tiles.coords[:5].tolist():
            expected = slide.read_patch(x, y, 128, 0.9).astype(int)
            assert np.abs(read_image(tmp_path / "out" / f"{x}_{y}.png") - expected).max() <= 1


def test_labelled_tiles_lie_in_their_classes_folder(tiles, tmp_path):
    labels = ("Tumour: CD3/4", None) + ("b",) * (len(tiles) - 2)
    write_images(replace(tiles, labels=labels), tmp_path / "out", "jpeg")
    x, y = tiles.coords[0]
    image = Image.open(tmp_path / "out" / "Tumour_ CD3_4" / f"{x}_{y}.jpg")
    assert (image.format, image.size) == ("JPEG", (128, 128))
    x, y = tiles.coords[1]
    assert (tmp_path / "out" / f"{x}_{y}.jpg").is_file()
    assert len(list((tmp_path / "out" / "b").iterdir())) == len(tiles) - 2


def test_an_earlier_runs_tiles_go_and_other_files_stay(tiles, tmp_path):
    folder = tmp_path / "out"
    write_images(replace(tiles, labels=("old",) * len(tiles)), folder, "png")
    (folder / "Data0001.dat").touch()
    (folder / "Slidedat.ini").touch()
    write_images(replace(tiles, labels=("new",) * len(tiles)), folder, "png")
    assert sorted(path.name for path in folder.iterdir()) == ["Data0001.dat", "Slidedat.ini", "new"]


def test_labels_become_safe_folder_names():
    assert folder_of("../../etc") == "_.._etc"
    assert folder_of("..") == "_"
    assert folder_of("né 😐") == "né 😐"


def test_a_full_disk_names_the_folder(tiles, tmp_path, little_room):
    with little_room(100), pytest.raises(OSError, match="File too large") as caught:
        write_images(tiles, tmp_path / "out", "png")
    assert caught.value.filename == str(tmp_path / "out")
