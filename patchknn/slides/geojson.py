"""Squares on a slide as GeoJSON that QuPath reads (RFC 7946; QuPath 0.4 and newer).

Of a feature QuPath takes ``objectType``, ``name``, ``classification`` (a name and an RGB triple),
``measurements`` (numbers by name), and from 0.5 on ``metadata`` (words by name). Coordinates are
level-0 pixels, as in all that QuPath itself writes. Of a class name with a colon QuPath makes a
class within a class.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from patchknn.files import replaced_atomically
from patchknn.slides.class_colours import Colour

SUFFIX = ".geojson"
_NAMES = uuid.UUID("7d3ee1c5-5f0c-5a4c-9b0e-2a9d6d9c5c1a")


def write_features(path: Path, features: Iterable[Mapping[str, Any]]) -> None:
    """Write features as a FeatureCollection, whole or not at all."""
    with replaced_atomically(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(feature, allow_nan=False))
        file.write("\n]}\n")


def tile_feature(
    name: str,
    corner: tuple[int, int],
    side: int,
    classification: tuple[str, Colour] | None,
    measured: Mapping[str, float],
) -> dict[str, Any]:
    """A square of ``side`` level-0 pixels whose top left is ``corner`` (x, y).

    ``name`` makes its id; ``classification`` is a class and its colour; a measurement that is not
    finite is left out.
    """
    properties: dict[str, Any] = {"objectType": "tile", "name": name}
    if classification is not None:
        told, colour = classification
        properties["classification"] = {"name": told, "color": list(colour)}
    # QuPath makes numbers of all that stand here: what is unknown is left out.
    properties["measurements"] = {k: v for k, v in measured.items() if math.isfinite(v)}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMES, name.encode("utf-8", "backslashreplace").decode())),
        "geometry": {"type": "Polygon", "coordinates": [_square(*corner, side)]},
        "properties": properties,
    }


def _square(x: int, y: int, side: int) -> list[list[int]]:
    """Its corners and the first one again, in the turning sense of RFC 7946, section 3.1.6."""
    right, bottom = x + side, y + side
    return [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
