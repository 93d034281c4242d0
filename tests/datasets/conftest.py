"""Small real images and slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image


def noise(height, width, seed=0):
    """A picture (H, W, 3) that no two seeds share and no orientation leaves as it is."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def write_png():
    def write(path, seed=0, size=(32, 32)):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(*size, seed)).save(path)
        return path

    return write


@pytest.fixture
def write_slide():
    """A tiled TIFF: pink tissue on white with noise, ``mpp`` in its resolution tags."""

    def write(path, *, size=256, mpp=0.5, tissue=True, seed=0):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((size, size, 3), 245, np.uint8)
        if tissue:
            half = size // 2
            grain = np.random.default_rng(seed).integers(-30, 30, (size, half, 3))
            pixels[:, :half] = np.clip(np.array([200, 90, 160]) + grain, 0, 255)
        resolution = {} if mpp is None else {"resolution": (10000 / mpp,) * 2}
        unit = {} if mpp is None else {"resolutionunit": "CENTIMETER"}
        tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", **resolution, **unit)
        return path

    return write
