"""QuPath's GeoJSON for the regions of a slide."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from patchknn.simulate.classes import TISSUE_CLASSES
from patchknn.simulate.layout import Region


def geojson(regions: Sequence[Region], rng: np.random.Generator) -> dict[str, Any]:
    """A FeatureCollection as QuPath exports it; coordinates in level-0 pixels, rings closed."""
    colours = {entry.name: list(entry.colour) for entry in TISSUE_CLASSES}
    features = []
    for region in regions:
        ring = region.outline.tolist()
        classification = {"name": region.label, "color": colours[region.label]}
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {"objectType": "annotation", "classification": classification},
            }
        )
    return {"type": "FeatureCollection", "features": features}
