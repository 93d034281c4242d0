"""QuPath's GeoJSON and ASAP's XML as their programs write them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from patchknn.errors import InputError
from patchknn.slides.annotations import find_annotations, read_annotations

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
FAR = [[20, 20], [30, 20], [30, 30], [20, 20]]


def feature(geometry, coordinates, classification):
    return {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": {"type": geometry, "coordinates": coordinates},
        "properties": {"objectType": "annotation", "classification": classification},
    }


def _write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


FEATURES = [
    feature("Polygon", [SQUARE, HOLE], {"name": "Tumor", "color": [200, 0, 0]}),
    feature("MultiPolygon", [[SQUARE, HOLE], [FAR]], {"name": "Stroma", "colorRGB": -65536}),
    feature("Polygon", [FAR], {"names": ["Immune", "CD3"]}),
    feature("Polygon", [FAR], "Plain"),
    feature("LineString", SQUARE, {"name": "Tumor"}),
    feature("Point", [1, 2], {"name": "Tumor"}),
    {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [FAR]}, "properties": {}},
    {"type": "Feature", "geometry": None, "properties": {"classification": {"name": "Tumor"}}},
]


@pytest.mark.parametrize("wrap", [list, lambda f: {"type": "FeatureCollection", "features": f}])
def test_qupath_geojson_as_a_collection_and_as_a_list(tmp_path, wrap):
    regions = read_annotations(_write(tmp_path / "a.geojson", wrap(FEATURES)))
    assert [r.label for r in regions] == ["Tumor", "Stroma", "Stroma", "Immune: CD3", "Plain"]
    assert [len(r.rings) for r in regions] == [2, 2, 1, 1, 1]
    np.testing.assert_array_equal(regions[0].rings[1], HOLE)


def test_asap_xml_with_groups(tmp_path):
    path = tmp_path / "a.xml"
    corners = "".join(
        f'<Coordinate Order="{order}" X="{x}.5" Y="{y}" />'
        for order, (x, y) in sorted(enumerate(SQUARE[:4]), reverse=True)
    )
    path.write_text(
        '<?xml version="1.0"?><ASAP_Annotations><Annotations>'
        f'<Annotation Name="A 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58">'
        f"<Coordinates>{corners}</Coordinates></Annotation>"
        f'<Annotation Name="A 1" Type="Spline" PartOfGroup="None" Color="#F4FA58">'
        f"<Coordinates>{corners}</Coordinates></Annotation>"
        f'<Annotation Name="A 2" Type="Dot" PartOfGroup="Tumor" Color="#F4FA58">'
        f"<Coordinates>{corners}</Coordinates></Annotation>"
        '</Annotations><AnnotationGroups><Group Name="Tumor" PartOfGroup="None" '
        'Color="#00ff00"><Attributes/></Group></AnnotationGroups></ASAP_Annotations>'
    )
    (region,) = read_annotations(path)
    assert region.label == "Tumor"
    np.testing.assert_array_equal(region.rings[0], np.array(SQUARE[:4]) + np.array([0.5, 0]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither GeoJSON nor ASAP XML"),
        ("<ASAP_Annotations><broken", "not valid XML"),
        ("<html/>", "<html>"),
        ('{"type": "Topology"}', "Topology"),
        ('{"no": 1}', "type"),
        (json.dumps([feature("Polygon", [[[0, 0], [1, 1]]], "x")]), "2 corners"),
        (json.dumps([feature("Polygon", [[[0, "b"], [1, 1], [2, 2]]], "x")]), "cannot be read"),
    ],
)
def test_broken_annotations_are_one_sentence_that_names_the_file(tmp_path, text, words):
    path = tmp_path / "broken.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=r"broken\.geojson cannot be read as annotations") as error:
        read_annotations(path)
    assert words in str(error.value)


def test_annotations_are_found_by_the_slides_name(tmp_path):
    for name in ("a/b.geojson", "c.svs.geojson", "d.xml", "e.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = {
        "a/b.svs": "a/b.geojson",
        "c.svs": "c.svs.geojson",
        "elsewhere/d.ome.tif": "d.xml",
        "e.svs": "e.json",
    }
    for slide, found in expected.items():
        assert find_annotations(tmp_path, slide) == tmp_path / found
    assert find_annotations(tmp_path, "none.svs") is None
    assert find_annotations(tmp_path / "d.xml", "any.svs") == tmp_path / "d.xml"
    with pytest.raises(InputError, match="does not exist"):
        find_annotations(tmp_path / "gone", "a.svs")
