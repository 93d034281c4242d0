"""Predictions on a slide as a picture: the slide small, its tiles in the colours of their classes.

A tile is tinted the more strongly the surer its prediction; one that is marked for review is
hollow. Under the tiles the slide is grey, so that a stain is not taken for a class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchknn.evaluation.class_colours import class_colour
from patchknn.evaluation.overlays.overlay_legend import beside_legend
from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.evaluation.overlays.tint import Picture, blended, grey, strength
from patchknn.files import replaced_atomically
from patchknn.slides.readers import open_slide

SUFFIX = ".png"
_TILE_PX = 24
_MOST_PIXELS = 24_000_000
_FRAME = 0.125  # the width of a hollow tile's frame, as a share of its side


def draw_overlay(path: Path, tiles: SlideTiles) -> None:
    """Draw a slide with its tiles as a PNG, whole or not at all.

    Tiles of one size have 24 px on every slide, so that slides of one archive are all at the same
    µm/px; of a slide that would have more than 24 million pixels, half, a quarter, … of that.
    Raises InputError where the slide cannot be read.
    """
    from PIL import Image

    # What is asked for is a share of level 0's pixels, whatever µm/px the slide says or does not.
    with open_slide(tiles.path, slide_mpp=1.0) as slide:
        width, height = slide.dimensions
        downsample = overlay_downsample(width, height, tiles.side)
        picture = slide.read_overview(downsample)
    tint(picture, tiles, downsample)
    image = beside_legend(Image.fromarray(picture), tiles, downsample)
    with replaced_atomically(path) as temporary:
        image.save(temporary, format="PNG")


def overlay_downsample(width: int, height: int, side: float) -> float:
    """How many level-0 pixels a pixel of the picture is wide."""
    downsample = side / _TILE_PX
    while (width / downsample) * (height / downsample) > _MOST_PIXELS:
        downsample *= 2
    return downsample


def tint(picture: Picture, tiles: SlideTiles, downsample: float) -> None:
    """Colour the tiles of a slide on its picture (H, W, 3), in place.

    Where tiles overlap, the surer one is seen; of equal ones the later.
    """
    confidence = np.nan_to_num(tiles.confidence)
    slide = picture.copy()
    for number in np.argsort(confidence, kind="stable").tolist():
        left, right, top, bottom = _pixels(picture, tiles, number, downsample)
        area = slide[top:bottom, left:right]
        if not area.size:
            continue
        colour = class_colour(int(tiles.prediction[number]))
        tinted = blended(area, colour, strength(float(confidence[number])))
        if tiles.review[number] or tiles.prediction[number] < 0:
            frame = max(round(_FRAME * (right - left)), 1)
            tinted[frame:-frame, frame:-frame] = grey(area[frame:-frame, frame:-frame])
        picture[top:bottom, left:right] = tinted


def _pixels(
    picture: Picture, tiles: SlideTiles, number: int, downsample: float
) -> tuple[int, int, int, int]:
    """Left, right, top and bottom of a tile; tiles side by side leave no gap."""
    height, width = picture.shape[:2]
    x, y = tiles.coords[number].tolist()
    edges = (x, x + tiles.side, y, y + tiles.side)
    left, right, top, bottom = (round(edge / downsample) for edge in edges)
    left, top = max(left, 0), max(top, 0)
    return left, min(max(right, left + 1), width), top, min(max(bottom, top + 1), height)
