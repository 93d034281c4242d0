"""Predictions on a slide as GeoJSON that QuPath reads (RFC 7946; QuPath 0.4 and newer).

Of a feature QuPath takes ``objectType``, ``name``, ``classification`` (a name and an RGB triple),
``measurements`` (numbers by name), and from 0.5 on ``metadata`` (words by name). Coordinates are
level-0 pixels, as in all that QuPath itself writes. Of a class name with a colon QuPath makes a
class within a class.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchknn.archive.snapshot import patch_id
from patchknn.evaluation.class_colours import class_colour
from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.files import replaced_atomically

SUFFIX = ".geojson"
_NAMES = uuid.UUID("7d3ee1c5-5f0c-5a4c-9b0e-2a9d6d9c5c1a")


def write_geojson(path: Path, tiles: SlideTiles) -> None:
    """Write a slide's tiles as a FeatureCollection of squares, whole or not at all."""
    with replaced_atomically(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(tile_features(tiles)):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(feature, allow_nan=False))
        file.write("\n]}\n")


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
        strict=True,
    )
    for (x, y), prediction, confidence, weighted, radius, ball, distance, review in columns:
        name = patch_id(tiles.name, x, y)
        properties: dict[str, Any] = {"objectType": "tile", "name": name}
        if prediction >= 0:
            properties["classification"] = {
                "name": tiles.classes[prediction],
                "color": list(class_colour(prediction)),
            }
        measured = {
            "Confidence": confidence,
            "Confidence by distance": weighted,
            "Nearest neighbour (L2)": distance,
            "Hamming radius (bits)": math.nan if radius < 0 else radius,
            "Rows in ball": ball,
            "For review": int(review),
        }
        # QuPath makes numbers of all that stand here: what is unknown is left out.
        properties["measurements"] = {
            key: value for key, value in measured.items() if math.isfinite(value)
        }
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMES, name.encode("utf-8", "backslashreplace").decode())),
            "geometry": {"type": "Polygon", "coordinates": [_square(x, y, side)]},
            "properties": properties,
        }


def _square(x: int, y: int, side: int) -> list[list[int]]:
    """Its corners and the first one again, in the turning sense of RFC 7946, section 3.1.6."""
    right, bottom = x + side, y + side
    return [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
