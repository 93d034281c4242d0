"""Predictions on a slide as a picture: the slide small, its tiles in the colours of their classes.

A tile is tinted the more strongly the surer its prediction; one that is marked for review is
hollow. Under the tiles the slide is grey, so that a stain is not taken for a class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchknn.evaluation.overlays.overlay_legend import overlay_legend
from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.files import replaced_atomically
from patchknn.slides.class_colours import class_colour
from patchknn.slides.legend import beside_legend
from patchknn.slides.overview import SUFFIX, slide_picture, tile_pixels
from patchknn.slides.tint import Picture, blended, grey, strength

__all__ = ["SUFFIX", "draw_overlay", "tint"]

_FRAME = 0.125  # the width of a hollow tile's frame, as a share of its side


def draw_overlay(path: Path, tiles: SlideTiles) -> None:
    """Draw a slide with its tiles as a PNG, as large as ``slide_picture``, whole or not at all.

    Raises InputError where the slide cannot be read.
    """
    from PIL import Image

    picture, downsample = slide_picture(tiles.path, tiles.side)
    tint(picture, tiles, downsample)
    image = beside_legend(Image.fromarray(picture), overlay_legend(tiles, downsample))
    with replaced_atomically(path) as temporary:
        image.save(temporary, format="PNG")


def tint(picture: Picture, tiles: SlideTiles, downsample: float) -> None:
    """Colour the tiles of a slide on its picture (H, W, 3), in place.

    Where tiles overlap, the surer one is seen; of equal ones the later.
    """
    confidence = np.nan_to_num(tiles.sureness)
    slide = picture.copy()
    for number in np.argsort(confidence, kind="stable").tolist():
        x, y = tiles.coords[number].tolist()
        left, right, top, bottom = tile_pixels(picture.shape, (x, y), tiles.side, downsample)
        area = slide[top:bottom, left:right]
        if not area.size:
            continue
        colour = class_colour(int(tiles.prediction[number]))
        tinted = blended(area, colour, strength(float(confidence[number])))
        if tiles.review[number] or tiles.prediction[number] < 0:
            frame = max(round(_FRAME * (right - left)), 1)
            tinted[frame:-frame, frame:-frame] = grey(area[frame:-frame, frame:-frame])
        picture[top:bottom, left:right] = tinted
