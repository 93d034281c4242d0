"""Pyramids of pixels behind one interface: OpenSlide, tiffslide, and images decoded whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError
from patchknn.slides.flat import FlatImage, check_complete, tiff_mpp
from patchknn.slides.pixels import image_on_white, to_eight_bits
from patchknn.slides.resolution import is_plausible, mean_mpp, mpp_from_ome

if TYPE_CHECKING:
    from PIL import Image

    Region = NDArray[np.uint8] | Image.Image


class Pyramid(Protocol):
    """Levels of one slide, finest first; what a file states about its resolution is unchecked.

    ``reads_in_threads``: several threads may read from it at once, and gain by it.
    """

    reader: str
    reads_in_threads: bool
    reader_version: str
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    mpp: float | None
    magnification: float | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Region:
        """Pixels (height, width, 3) from (x, y) in pixels of ``level``; outside it is white.

        As an array, or as the RGB image that a reader has them in: most are only resampled.
        """
        ...

    def close(self) -> None:
        """Let the file go."""
        ...


class OpenSlidePyramid:
    """A slide that OpenSlide reads."""

    reader = "openslide"
    reads_in_threads = True

    def __init__(self, path: Path) -> None:
        """Open a slide; raises openslide.OpenSlideError where OpenSlide refuses it."""
        import openslide

        self._path = path
        self._slide = openslide.OpenSlide(str(path))
        self.reader_version = str(openslide.__library_version__)
        self.level_dimensions = tuple(self._slide.level_dimensions)
        self.level_downsamples = tuple(float(d) for d in self._slide.level_downsamples)
        properties = self._slide.properties
        self.mpp = mean_mpp(
            _number(properties, "openslide.mpp-x"), _number(properties, "openslide.mpp-y")
        )
        self.magnification = _number(properties, "openslide.objective-power")
        self.is_generic = properties.get("openslide.vendor") == "generic-tiff"
        description = properties.get("tiff.ImageDescription", "")
        if self.mpp is None and "<OME" in description:
            self.mpp = mpp_from_ome(description)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        """An RGB image; transparent and off-slide pixels are white."""
        import openslide

        downsample = self.level_downsamples[level]
        corner = (round(x * downsample), round(y * downsample))
        try:
            region = self._slide.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            reason = str(error).rstrip(".")
            message = f"{self._path} cannot be read: {reason}; it may be damaged."
            raise InputError(message) from None
        return image_on_white(region)

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


class TiffSlidePyramid:
    """A tiled TIFF that OpenSlide refuses and tiffslide reads."""

    reader = "tiffslide"
    reads_in_threads = False

    def __init__(self, path: Path) -> None:
        """Open a slide; raises InputError where its pixels reach beyond the end of the file."""
        import tifffile
        import tiffslide

        self._path = path
        with tifffile.TiffFile(path) as tiff:
            for level in tiff.series[0].levels:
                check_complete(path, level.pages)
            stated = tiff_mpp(tiff)
        with warnings.catch_warnings():  # it warns of metadata that it only half understands
            warnings.simplefilter("ignore")
            self._slide = tiffslide.TiffSlide(str(path))
            properties = self._slide.properties
        self.reader_version = version("tiffslide")
        self.level_dimensions = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        self.level_downsamples = tuple(float(d) for d in self._slide.level_downsamples)
        own = mean_mpp(
            _number(properties, "tiffslide.mpp-x"), _number(properties, "tiffslide.mpp-y")
        )
        self.mpp = own if is_plausible(own) or stated is None else stated
        self.magnification = _number(properties, "tiffslide.objective-power")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels (height, width, 3); off-slide ones are white."""
        return _read_clipped(
            lambda *box: self._read_inside(level, *box),
            self.level_dimensions[level],
            (x, y, width, height),
        )

    def _read_inside(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        downsample = self.level_downsamples[level]
        corner = (round(x * downsample), round(y * downsample))
        try:
            region = self._slide.read_region(corner, level, (width, height), as_array=True)
            return to_eight_bits(np.asarray(region)[:, :, :3])
        except Exception as error:  # noqa: BLE001  a codec's own errors share no base class
            reason = str(error).rstrip(".")
            message = f"{self._path} cannot be read: {reason}; it may be damaged."
            raise InputError(message) from None

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


class FlatPyramid:
    """One level, held in memory."""

    reads_in_threads = False
    level_downsamples: tuple[float, ...] = (1.0,)
    magnification: float | None = None

    def __init__(self, image: FlatImage) -> None:
        self._pixels = image.pixels
        self.reader, self.reader_version = image.reader, image.reader_version
        self.mpp = image.mpp
        height, width = image.pixels.shape[:2]
        self.level_dimensions: tuple[tuple[int, int], ...] = ((width, height),)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels (height, width, 3); off-image ones are white."""
        return _read_clipped(self._cut, self.level_dimensions[level], (x, y, width, height))

    def _cut(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return self._pixels[y : y + height, x : x + width]

    def close(self) -> None:
        """Nothing is held open."""


def _read_clipped(
    read_inside: Callable[[int, int, int, int], NDArray[np.uint8]],
    dimensions: tuple[int, int],
    box: tuple[int, int, int, int],
) -> NDArray[np.uint8]:
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, dimensions[0]), min(y + height, dimensions[1])
    if (left, top, right, bottom) == (x, y, x + width, y + height):
        return read_inside(*box)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    if right > left and bottom > top:
        inside = read_inside(left, top, right - left, bottom - top)
        pixels[top - y : bottom - y, left - x : right - x] = inside
    return pixels


def _number(properties: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(properties[key])
    except (KeyError, TypeError, ValueError):
        return None
