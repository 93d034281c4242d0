"""A slide file: a pyramidal TIFF of JPEG tiles that says its µm per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.files import replaced_atomically

_TILE = 256
_SMALLEST_LEVEL = 256
_QUALITY = 88


def write_pyramid(path: Path, image: npt.NDArray[np.uint8], mpp: float) -> int:
    """Write (height, width, 3) uint8 as a tiled pyramid, halving per level; return the levels.

    Resolution is stored in pixels per centimetre, from which OpenSlide and tiffslide derive
    the mpp; smaller levels carry the subfile type that readers of generic TIFF look for.
    """
    import tifffile

    levels = [image]
    while min(levels[-1].shape[:2]) >= 2 * _SMALLEST_LEVEL:
        levels.append(_half(levels[-1]))
    with replaced_atomically(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        for number, level in enumerate(levels):
            scale = image.shape[1] / level.shape[1]
            per_centimetre = 10_000 / (mpp * scale)
            writer.write(
                level,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": _QUALITY},
                subfiletype=1 if number else 0,
                resolution=(per_centimetre, per_centimetre),
                resolutionunit="CENTIMETER",
                metadata=None,
                software="patchknn",
            )
    return len(levels)


def _half(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mean of 2 × 2 pixels; an odd last row or column is left out."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).reduce(2))
