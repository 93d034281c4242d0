"""A slide as large as they come, made in a minute: a few JPEG tiles, again and again."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

_TILE = 512
_LEAST = 2048  # the coarsest level may have as many pixels on a side
_MPP = 0.25
_KINDS = 8


def huge(cache: Path, side: int, tissue: float) -> Path:
    """A pyramid by fours of ``side`` × ``side`` px at 0.25 µm/px, its left ``tissue`` share pink.

    Tiles are encoded once and written as often as they are needed: a slide of 100,000 px takes
    some hundred megabytes.
    """
    path = cache / f"huge-{side}-{round(100 * tissue)}.tif"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    glass = [_jpeg(np.full((_TILE, _TILE, 3), 245, np.uint8))]
    pink = [_jpeg(_stained(rng)) for _ in range(_KINDS)]
    unfinished = path.with_suffix(".unfinished")
    with tifffile.TiffWriter(unfinished, bigtiff=True) as file:
        length, level = side, 0
        while level == 0 or length >= _LEAST:
            across = -(-length // _TILE)

            def tiles(across: int = across) -> Iterator[bytes]:
                for number in range(across * across):
                    kinds = pink if number % across < tissue * across else glass
                    yield kinds[(number * 7919) % len(kinds)]

            file.write(
                tiles(),
                shape=(length, length, 3),
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=1 if level else 0,
                resolution=(1e4 / (_MPP * 4**level),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            length, level = length // 4, level + 1
    unfinished.rename(path)
    return path


def _stained(rng: np.random.Generator) -> np.ndarray:
    """Something pink with blobs in it, smooth enough to be small as a JPEG."""
    coarse = rng.integers(-40, 40, (_TILE // 16, _TILE // 16, 3)) + np.array([205, 110, 170])
    picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.resize((_TILE, _TILE), Image.Resampling.BICUBIC))


def _jpeg(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=70, subsampling="4:2:0")
    return file.getvalue()
