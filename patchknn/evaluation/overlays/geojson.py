"""Predictions on a slide as GeoJSON that QuPath reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from patchknn.archive.snapshot import patch_id
from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.slides.class_colours import class_colour
from patchknn.slides.geojson import SUFFIX, tile_feature, write_features

__all__ = ["SUFFIX", "tile_features", "write_geojson"]


def write_geojson(path: Path, tiles: SlideTiles) -> None:
    """Write a slide's tiles as a FeatureCollection of squares, whole or not at all."""
    write_features(path, tile_features(tiles))


def tile_features(tiles: SlideTiles) -> Iterator[dict[str, Any]]:
    """One feature for each tile, in order; one without a prediction has no classification."""
    side = round(tiles.side)
    columns = zip(
        tiles.coords.tolist(),
        tiles.prediction.tolist(),
        tiles.confidence.tolist(),
        tiles.weighted.tolist(),
        tiles.radius.tolist(),
        tiles.ball.tolist(),
        tiles.distance.tolist(),
        tiles.review.tolist(),
        _calibration(tiles),
        strict=True,
    )
    for (x, y), prediction, confidence, weighted, radius, ball, distance, review, more in columns:
        told = None
        if prediction >= 0:
            told = tiles.classes[prediction], class_colour(prediction)
        measured = {
            "Confidence": confidence,
            "Confidence by distance": weighted,
            "Nearest neighbour (L2)": distance,
            "Hamming radius (bits)": math.nan if radius < 0 else radius,
            "Rows in ball": ball,
            "For review": int(review),
            **more,
        }
        yield tile_feature(patch_id(tiles.name, x, y), (x, y), side, told, measured)


def _calibration(tiles: SlideTiles) -> Iterator[dict[str, Any]]:
    """What a calibration says of each tile, nothing where none was asked."""
    if tiles.calibrated is None or tiles.strange is None:
        return repeat({}, len(tiles.coords))
    pairs = zip(tiles.calibrated.tolist(), tiles.strange.tolist(), strict=True)
    return ({"Calibrated confidence": sure, "Out of distribution": int(far)} for sure, far in pairs)
