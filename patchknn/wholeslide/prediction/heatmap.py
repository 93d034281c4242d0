"""A slide's saliency as a picture and as GeoJSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from patchknn.archive.snapshot import patch_id
from patchknn.files import replaced_atomically
from patchknn.slides.class_colours import class_colour
from patchknn.slides.geojson import tile_feature, write_features
from patchknn.slides.legend import Legend, beside_legend
from patchknn.slides.overview import slide_picture, tile_pixels
from patchknn.slides.tint import Picture, blended, strength
from patchknn.wholeslide.prediction.predicting import Floats, SlidePrediction

_PAPER, _TISSUE = 255, 215
_TILE_PX = 8
_HOT = class_colour(1)


def relative(prediction: SlidePrediction) -> Floats:
    """Saliency (H, W) from 0 to 1: a share of the largest; what speaks against the answer is 0."""
    values = prediction.saliency.clip(min=0)
    most = values.max(initial=0)
    return values / most if most > 0 else values


def draw_heatmap(path: Path, prediction: SlidePrediction, slide: Path | None) -> None:
    """Draw how salient each patch is, on the slide where its file is known, whole or not at all.

    Without one on plain tissue, a patch having 8 pixels; a legend stands beside it. Raises
    InputError where the slide cannot be read.
    """
    from PIL import Image

    if slide is None:
        picture, downsample = _plain(prediction), prediction.grid.info.level0_step / _TILE_PX
    else:
        picture, downsample = _on_slide(prediction, slide)
    sheet = beside_legend(Image.fromarray(picture), _legend(prediction, downsample))
    with replaced_atomically(path) as temporary:
        sheet.save(temporary, format="PNG")


def write_heatmap_geojson(path: Path, prediction: SlidePrediction) -> None:
    """Write every tissue patch with how salient it is, classified as the slide, for QuPath."""
    write_features(path, _features(prediction))


def _features(prediction: SlidePrediction) -> Iterator[dict[str, Any]]:
    places = prediction.grid.places()
    corners = prediction.grid.info.corners(places).tolist()
    values, shares = prediction.saliency, relative(prediction)
    for (row, column), (x, y) in zip(places.tolist(), corners, strict=True):
        measured = {
            "Saliency": float(values[row, column]),
            "Saliency (share of largest)": float(shares[row, column]),
        }
        name = patch_id(prediction.name, x, y)
        told = (prediction.label, _HOT)
        yield tile_feature(name, (x, y), prediction.side, told, measured)


def _legend(prediction: SlidePrediction, downsample: float) -> Legend:
    told = prediction.answer.get("probability")
    sure = f" at {told:.0%}" if isinstance(told, float) else ""
    return Legend(
        title=prediction.name,
        subtitle=f"{int(prediction.grid.mask.sum())} patches",
        lines=[(_HOT, f"{prediction.label}{sure}") if prediction.answer else (None, "no tissue")],
        steps=f"{prediction.method}, share of the largest",
        colour=_HOT,
        downsample=downsample,
        mpp=prediction.grid.info.level0_mpp,
    )


def _plain(prediction: SlidePrediction) -> Picture:
    mask, shares = prediction.grid.mask, relative(prediction)
    picture = np.where(mask[..., None], _TISSUE, _PAPER).astype(np.uint8).repeat(3, axis=2)
    for row, column in prediction.grid.places().tolist():
        area = picture[row : row + 1, column : column + 1]
        share = float(shares[row, column])
        if share > 0:
            picture[row : row + 1, column : column + 1] = blended(area, _HOT, strength(share))
    return np.ascontiguousarray(picture.repeat(_TILE_PX, axis=0).repeat(_TILE_PX, axis=1))


def _on_slide(prediction: SlidePrediction, slide: Path) -> tuple[Picture, float]:
    picture, downsample = slide_picture(slide, prediction.side)
    bare, shares = picture.copy(), relative(prediction)
    places = prediction.grid.places()
    corners = prediction.grid.info.corners(places)
    strengths = shares[tuple(places.T)]
    # Where patches overlap, the more salient one is seen.
    for number in np.argsort(strengths, kind="stable").tolist():
        x, y = corners[number].tolist()
        share = float(strengths[number])
        left, right, top, bottom = tile_pixels(picture.shape, (x, y), prediction.side, downsample)
        area = bare[top:bottom, left:right]
        if area.size and share > 0:
            picture[top:bottom, left:right] = blended(area, _HOT, strength(share))
    return picture, downsample
