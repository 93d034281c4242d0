"""Plain image files as RGB arrays, whatever way their pixels are stored."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
MAX_FLAT_PIXELS = 1_000_000_000
"""A flat image is decoded whole, at 3 bytes a pixel; more than this belongs in a tiled file."""

_BOMB_LIMIT = threading.Lock()


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB.

    CMYK, palette, grey and 16-bit images are converted (16 bits by their full range), transparent
    ones laid on white; only the first frame counts, and EXIF orientation is ignored. Raises
    InputError for a file that is missing, empty, truncated, too large or not an image.
    """
    require_file(path)
    from PIL import Image, UnidentifiedImageError

    try:
        with _large_images_allowed(), Image.open(path) as image:
            check_flat_size(path, image.size)
            if not _pillow_misreads(image):
                return to_rgb(image)
        return _read_tiff(path)
    except UnidentifiedImageError:
        if _is_tiff(path):
            return _read_tiff(path)
        reason = "its content is none of the image formats that Pillow knows."
    except Image.DecompressionBombError:
        message = f"{path} is too large for a flat image; store it as a tiled TIFF."
        raise InputError(message) from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if _is_tiff(path):
            return _read_tiff(path)
        reason = f"{str(error).rstrip('.')}; it may be truncated or damaged."
    message = f"{path} is not an image: {reason}"
    raise InputError(message)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a Pillow image as (H, W, 3) uint8 RGB; raises ValueError where that cannot be."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if mode in {"I", "F"} or mode.startswith("I;16"):
        return grey_to_rgb(np.asarray(image))
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def grey_to_rgb(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values (H, W) of 8 or 16 bits, in any number type, as (H, W, 3) uint8.

    Raises ValueError for fractions, negative values and values of more than 16 bits: nothing in
    the file says which of them is white.
    """
    eight = to_eight_bits(values)
    return np.repeat(eight[:, :, None], 3, axis=2)


def to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Pixel values of 8 or 16 bits as uint8, by the full range of their type."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    numbers = values.astype(np.float64)
    if numbers.size and (numbers.min() < 0 or numbers.max() > 65535 or values.dtype.kind == "f"):
        message = f"its pixels are {values.dtype}, not 8 or 16 bits; save it as 8-bit RGB"
        raise ValueError(message)
    return np.rint(numbers / 257.0).astype(np.uint8)


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay straight-alpha RGBA (H, W, 4) on white: (H, W, 3) uint8."""
    pixels = np.ascontiguousarray(rgba[:, :, :3])
    alpha = rgba[:, :, 3]
    sheer = alpha != 255  # mostly none, or a margin off the slide: blending all would cost more
    if sheer.any():
        weight = alpha[sheer][:, None].astype(np.uint16)
        mixed = pixels[sheer] * weight + 255 * (255 - weight)
        pixels[sheer] = (mixed + 127) // 255
    return pixels


def require_file(path: Path) -> None:
    """Raise InputError where a path is missing, a folder or an empty file."""
    if path.is_dir():
        message = f"{path} is a folder, not an image file."
        raise InputError(message)
    if not path.exists():
        message = f"{path} does not exist."
        raise InputError(message)
    if path.stat().st_size == 0:
        message = f"{path} is not an image: it is an empty file."
        raise InputError(message)


def check_flat_size(path: Path, size: tuple[int, int]) -> None:
    """Raise InputError where a flat image of (width, height) should not be decoded whole."""
    width, height = size
    if width * height > MAX_FLAT_PIXELS:
        message = f"{path} is {width} × {height} px in one piece; store it as a tiled TIFF."
        raise InputError(message)


@contextmanager
def _large_images_allowed() -> Iterator[None]:
    # Pillow's guard against decompression bombs fires at 0.18 gigapixels, which an honest scan
    # reaches; ours is checked from the header, before any pixel is decoded.
    from PIL import Image

    with _BOMB_LIMIT:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _pillow_misreads(image: Image.Image) -> bool:
    # It shuffles the planes of a 16-bit TIFF that stores them apart, without a word.
    tags = getattr(image, "tag_v2", {})
    bits, planar_configuration = tags.get(258, (1,)), tags.get(284, 1)
    return bool(max(bits) > 8 or planar_configuration == 2)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def _read_tiff(path: Path) -> NDArray[np.uint8]:
    from patchknn.slides.flat import read_flat_tiff

    return read_flat_tiff(path).pixels
