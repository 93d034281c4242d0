"""Annotated regions of a slide: QuPath's GeoJSON and ASAP's XML, in level-0 pixels."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError
from patchknn.slides.listing import stem_of

ANNOTATION_SUFFIXES = (".geojson", ".json", ".xml")


@dataclass(frozen=True)
class Region:
    """One polygon of a class: its outline and its holes, each (M, 2) float64 (x, y)."""

    label: str
    rings: tuple[NDArray[np.float64], ...]


def find_annotations(place: Path, name: str) -> Path | None:
    """The annotation file of a slide in a folder: by the slide's name, with or without suffix.

    ``a/b.svs`` is looked up as ``a/b.geojson``, ``a/b.svs.geojson`` and ``b.geojson``; likewise
    ``.json`` and ``.xml``. A ``place`` that is a file is the answer itself. Raises InputError
    where the place does not exist.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        message = f"{place} does not exist; --annotations is a file, or a folder of them."
        raise InputError(message)
    short = name.rpartition("/")[2]
    for stem in dict.fromkeys((stem_of(name), name, stem_of(short), short)):
        for suffix in ANNOTATION_SUFFIXES:
            candidate = place / f"{stem}{suffix}"
            if candidate.is_file():
                return candidate
    return None


def read_annotations(path: Path) -> list[Region]:
    """Regions with a class, in the file's order; points, lines and unclassified ones are left.

    Raises InputError where the file is neither GeoJSON nor ASAP XML, or holds a broken polygon.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        message = f"{path} does not exist."
        raise InputError(message) from None
    try:
        if text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return list(_from_asap(ET.fromstring(text)))
        return list(_from_geojson(json.loads(text)))
    except ET.ParseError as error:
        reason = f"it is not valid XML ({error})"
    except json.JSONDecodeError as error:
        reason = f"it is neither GeoJSON nor ASAP XML ({error})"
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    message = f"{path} cannot be read as annotations: {reason}."
    raise InputError(message)


def _from_geojson(value: Any) -> Iterator[Region]:
    if isinstance(value, list):
        for feature in value:
            yield from _from_geojson(feature)
    elif value["type"] == "FeatureCollection":
        yield from _from_geojson(value["features"])
    elif value["type"] == "Feature":
        label = _classification(value.get("properties") or {})
        if label is not None and value.get("geometry") is not None:
            for rings in _polygons(value["geometry"]):
                yield Region(label, rings)
    elif value["type"] not in _GEOMETRIES:
        message = f"no GeoJSON type {value['type']!r} is known"
        raise ValueError(message)


_GEOMETRIES = {
    "Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString",
    "MultiLineString",
}  # fmt: skip


def _classification(properties: dict[str, Any]) -> str | None:
    given = properties.get("classification")
    if isinstance(given, dict):
        # QuPath 0.5 and newer write a list of names; its own way to show it is "A: B".
        given = given.get("name") or ": ".join(given.get("names") or [])
    if isinstance(given, str) and given.strip():
        return given.strip()
    return None


def _polygons(geometry: dict[str, Any]) -> Iterator[tuple[NDArray[np.float64], ...]]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygons(part)
    elif kind == "Polygon":
        yield tuple(_ring(points) for points in geometry["coordinates"])
    elif kind == "MultiPolygon":
        for polygon in geometry["coordinates"]:
            yield tuple(_ring(points) for points in polygon)
    elif kind not in _GEOMETRIES:
        message = f"no geometry {kind!r} is known"
        raise ValueError(message)


def _from_asap(root: ET.Element) -> Iterator[Region]:
    if root.tag != "ASAP_Annotations":
        message = f"its root is <{root.tag}>, not <ASAP_Annotations>"
        raise ValueError(message)
    for annotation in root.iter("Annotation"):
        label = (annotation.get("PartOfGroup") or "None").strip()
        if annotation.get("Type") not in {"Polygon", "Spline", "Rectangle"} or label == "None":
            continue
        corners = sorted(annotation.iter("Coordinate"), key=lambda c: float(c.attrib["Order"]))
        points = [(float(c.attrib["X"]), float(c.attrib["Y"])) for c in corners]
        yield Region(label, (_ring(points),))


def _ring(points: Any) -> NDArray[np.float64]:
    ring = np.array([point[:2] for point in points], dtype=np.float64).reshape(-1, 2)
    if len(ring) < 3 or not np.isfinite(ring).all():
        message = f"a polygon has {len(ring)} corners, or one that is not a number"
        raise ValueError(message)
    return ring
