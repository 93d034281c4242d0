"""Tiles as image files: ``NAME/LABEL/X_Y.png``, an ImageFolder that any trainer reads."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Literal

from patchknn.files import errors_named
from patchknn.slides.readers import open_slide
from patchknn.slides.tileset import TileSet

ImageFormat = Literal["png", "jpeg"]

_SUFFIXES: dict[str, str] = {"png": ".png", "jpeg": ".jpg"}
_OPTIONS: dict[str, dict[str, int]] = {
    # Run lengths alone take a third of the time, and stained tissue as many bytes as ever.
    "png": {"compress_type": zlib.Z_RLE},
    "jpeg": {"quality": 95, "subsampling": 0},
}
_OURS = re.compile(r"\d+_\d+\.(png|jpg)")
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]+')


def write_images(tileset: TileSet, folder: Path, image_format: ImageFormat) -> None:
    """Write every tile below ``folder``: into its class's folder, or beside them without one.

    Coordinates are level-0 pixels. Tiles of an earlier run are removed first, other files are
    left. Raises InputError where the slide cannot be read.
    """
    from PIL import Image

    remove_images(folder)
    labels = tileset.labels or (None,) * len(tileset)
    corners = [(int(x), int(y)) for x, y in tileset.coords]
    options = _OPTIONS[image_format]
    with (
        open_slide(tileset.slide, slide_mpp=tileset.level0_mpp) as slide,
        errors_named(folder),
    ):
        patches = slide.read_patches(corners, tileset.patch_size, tileset.target_mpp)
        for (x, y), label, patch in zip(corners, labels, patches, strict=True):
            place = folder / folder_of(label) if label else folder
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(patch)
            image.save(place / f"{x}_{y}{_SUFFIXES[image_format]}", format=image_format, **options)


def remove_images(folder: Path) -> None:
    """Remove tiles that an earlier run wrote below a folder, and folders this leaves empty."""
    if not folder.is_dir():
        return
    places = [place for place in folder.iterdir() if place.is_dir()]
    for place in [*places, folder]:
        for file in place.iterdir():
            if _OURS.fullmatch(file.name):
                file.unlink()
        if not any(place.iterdir()):
            place.rmdir()


def folder_of(label: str) -> str:
    """A class name as the name of a folder on any system."""
    name = _UNSAFE.sub("_", label).strip(". ")
    return name or "_"
