"""Plain image files as RGB arrays: by Pillow, and by tifffile where Pillow gives up."""

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
from patchknn.slides.flat import FlatImage, read_flat_tiff
from patchknn.slides.pixels import check_flat_size, require_file, to_rgb
from patchknn.slides.resolution import mpp_from_density

if TYPE_CHECKING:
    from PIL import Image

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
        return read_flat_tiff(path).pixels
    except UnidentifiedImageError:
        if _is_tiff(path):
            return read_flat_tiff(path).pixels
        reason = "its content is none of the image formats that Pillow knows."
    except Image.DecompressionBombError:
        message = f"{path} is too large for a flat image; store it as a tiled TIFF."
        raise InputError(message) from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if _is_tiff(path):
            return read_flat_tiff(path).pixels
        reason = f"{str(error).rstrip('.')}; it may be truncated or damaged."
    message = f"{path} is not an image: {reason}"
    raise InputError(message)


def read_flat(path: Path) -> FlatImage:
    """Decode a PNG, JPEG, BMP or WebP with the density its header states."""
    import PIL
    from PIL import Image

    pixels = read_image(path)
    with Image.open(path) as image:
        density = image.info.get("dpi")
    mpp = mpp_from_density(float(density[0]), float(density[1]), "inch") if density else None
    return FlatImage(pixels, mpp, "pillow", PIL.__version__)


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
