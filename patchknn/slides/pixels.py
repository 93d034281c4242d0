"""Pixel values as 8-bit RGB, whatever way they are stored; which files may hold them."""

from __future__ import annotations

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


def image_on_white(image: Image.Image) -> Image.Image:
    """The same of a straight-alpha RGBA image, as an RGB image; many times as fast."""
    alpha, rgb = image.getchannel("A"), image.convert("RGB")
    if alpha.getextrema()[0] == 255:
        return rgb
    from PIL import Image

    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(rgb, mask=alpha)
    return white


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


def file_size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def check_flat_size(path: Path, size: tuple[int, int]) -> None:
    """Raise InputError where a flat image of (width, height) should not be decoded whole."""
    width, height = size
    if width * height > MAX_FLAT_PIXELS:
        message = f"{path} is {width} × {height} px in one piece; store it as a tiled TIFF."
        raise InputError(message)
