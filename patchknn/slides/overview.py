"""A slide small, so that its tiles can be tinted on it: its picture, and where tiles lie there."""

from __future__ import annotations

from pathlib import Path

from patchknn.slides.readers import open_slide
from patchknn.slides.tint import Picture

SUFFIX = ".png"
_TILE_PX = 24
_MOST_PIXELS = 24_000_000


def slide_picture(path: Path, side: float) -> tuple[Picture, float]:
    """A slide with tiles of ``side`` level-0 pixels as a picture (H, W, 3), and its downsample.

    Tiles of one size have 24 px on every slide, so that slides of one archive are all at the same
    µm/px; of a slide that would have more than 24 million pixels, half, a quarter, … of that.
    Raises InputError where the slide cannot be read.
    """
    # What is asked for is a share of level 0's pixels, whatever µm/px the slide says or does not.
    with open_slide(path, slide_mpp=1.0) as slide:
        downsample = overlay_downsample(*slide.dimensions, side)
        return slide.read_overview(downsample), downsample


def overlay_downsample(width: int, height: int, side: float) -> float:
    """How many level-0 pixels a pixel of the picture is wide."""
    downsample = side / _TILE_PX
    while (width / downsample) * (height / downsample) > _MOST_PIXELS:
        downsample *= 2
    return downsample


def tile_pixels(
    shape: tuple[int, ...], corner: tuple[int, int], side: float, downsample: float
) -> tuple[int, int, int, int]:
    """Left, right, top and bottom of a tile in a picture (H, W, …); tiles leave no gap."""
    height, width = shape[:2]
    x, y = corner
    edges = (x, x + side, y, y + side)
    left, right, top, bottom = (round(edge / downsample) for edge in edges)
    left, top = max(left, 0), max(top, 0)
    return left, min(max(right, left + 1), width), top, min(max(bottom, top + 1), height)
