"""Small real slides: TIFFs written by tifffile, with tissue drawn on glass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SlideWriter = Callable[..., Path]


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Glass with a textured pink disk in the middle, (H, W, 3) uint8."""
    generator = np.random.default_rng(seed)
    rgb = generator.normal(243, 2, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    disk = np.hypot(y - height / 2, x - width / 2) < 0.35 * min(height, width)
    rgb[disk] = generator.normal((205, 130, 175), 18, (int(disk.sum()), 3))
    return rgb.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tissue_image() -> np.ndarray:
    return stained(1280, 1536)


@pytest.fixture
def write_slide(tmp_path) -> SlideWriter:
    """Write a tiled TIFF: ``write_slide(name, rgb, mpp=0.5, levels=(1, 2, 4))``."""

    def write(name, rgb, *, mpp=0.5, levels=(1, 2), compression=None, unit="CENTIMETER"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        per_cm = (1e4 / mpp, 1e4 / mpp) if mpp else None
        with tifffile.TiffWriter(path) as writer:
            for down in levels:
                size = (rgb.shape[1] // down, rgb.shape[0] // down)
                level = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
                writer.write(
                    level,
                    tile=(256, 256),
                    photometric="rgb",
                    compression=compression,
                    subfiletype=0 if down == 1 else 1,
                    resolution=per_cm,
                    resolutionunit=unit if mpp else None,
                    metadata=None,
                )
        return path

    return write
