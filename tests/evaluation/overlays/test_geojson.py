"""GeoJSON of predictions, against RFC 7946 and what QuPath reads."""

import json
import uuid
from pathlib import Path

import numpy as np
import pytest

from patchknn.evaluation.overlays.geojson import write_geojson
from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.slides.annotations import read_annotations
from patchknn.slides.class_colours import class_colour

# What QuPath 0.4's reader of objects calls them.
OBJECT_TYPES = {"annotation", "detection", "tile", "cell", "tmaCore", "root"}


def slide_tiles(name: str = "s.svs", classes: tuple[str, ...] = ("A", "B"), n: int = 3):
    steps = np.arange(n)
    return SlideTiles(
        name=name,
        path=Path("s.svs"),
        classes=classes,
        side=448.4,
        mpp=0.25,
        coords=np.stack([steps * 448, steps * 0 + 896], axis=1),
        prediction=np.array([0, 1, -1], np.int32)[:n],
        confidence=np.array([0.9, 0.5, np.nan])[:n],
        weighted=np.array([0.8, 0.4, np.nan])[:n],
        distance=np.array([1.5, 2.5, np.nan])[:n],
        radius=np.array([1, -1, 12])[:n],
        ball=np.array([40, 3, 0])[:n],
        review=np.array([False, True, True])[:n],
    )


@pytest.fixture
def written(tmp_path: Path) -> dict:
    write_geojson(tmp_path / "s.geojson", slide_tiles())
    return json.loads((tmp_path / "s.geojson").read_text())


def test_it_is_a_feature_collection_of_closed_squares(written: dict) -> None:
    assert written["type"] == "FeatureCollection"
    assert len(written["features"]) == 3
    for number, feature in enumerate(written["features"]):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        xs, ys = zip(*ring, strict=True)
        assert (min(xs), max(xs)) == (448 * number, 448 * number + 448)
        assert (min(ys), max(ys)) == (896, 896 + 448)
        area = sum(xs[i] * ys[i + 1] - xs[i + 1] * ys[i] for i in range(4)) / 2
        assert area == 448**2  # above 0: RFC 7946 has outlines turn to the left


def test_properties_are_those_that_qupath_reads(written: dict) -> None:
    first, second, third = (feature["properties"] for feature in written["features"])
    assert first["objectType"] in OBJECT_TYPES
    assert first["name"] == "s.svs@0_896"
    assert first["classification"] == {"name": "A", "color": list(class_colour(0))}
    assert first["measurements"] == {
        "Confidence": 0.9,
        "Confidence by distance": 0.8,
        "Nearest neighbour (L2)": 1.5,
        "Hamming radius (bits)": 1,
        "Rows in ball": 40,
        "For review": 0,
    }
    assert "Hamming radius (bits)" not in second["measurements"]
    assert "classification" not in third
    assert third["measurements"] == {
        "Hamming radius (bits)": 12,
        "Rows in ball": 0,
        "For review": 1,
    }


def test_identities_are_uuids_that_stay(written: dict, tmp_path: Path) -> None:
    write_geojson(tmp_path / "again.geojson", slide_tiles())
    again = json.loads((tmp_path / "again.geojson").read_text())
    ids = [feature["id"] for feature in written["features"]]
    assert ids == [feature["id"] for feature in again["features"]]
    assert len({uuid.UUID(one) for one in ids}) == 3


def test_its_classes_are_read_back_as_annotations(tmp_path: Path) -> None:
    write_geojson(tmp_path / "s.geojson", slide_tiles())
    regions = read_annotations(tmp_path / "s.geojson")
    assert [region.label for region in regions] == ["A", "B"]
    assert regions[1].rings[0][:, 0].min() == 448


HOSTILE = [
    '"quoted"',
    "</script><b>",
    "a\nb\t\\",
    "\u202eright to left",
    "x" * 300,
    "\udce4",
    "Ü: é",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text(text: str, tmp_path: Path) -> None:
    write_geojson(tmp_path / "s.geojson", slide_tiles(text, (text, "B")))
    data = (tmp_path / "s.geojson").read_bytes()
    first = json.loads(data.decode("utf-8"))["features"][0]["properties"]
    assert first["name"] == f"{text}@0_896"
    assert first["classification"]["name"] == text
