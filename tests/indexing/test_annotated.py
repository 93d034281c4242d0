"""Annotations that were changed: labels follow, as tile would have given them."""

from __future__ import annotations

import json

import pytest

from patchknn.archive.history import label_history
from patchknn.archive.listing import list_rows
from patchknn.archive.snapshot import open_archive
from patchknn.errors import InputError
from patchknn.indexing.annotated import corrections_by_annotations
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide


def _square(label, left, right):
    ring = [[left, 0], [right, 0], [right, 9999], [left, 9999], [left, 0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": label}},
    }


def _labels(path):
    return {row.id: row.label for row in list_rows(open_archive(path))}


def test_labels_follow_annotations(patchknn, embed, write_slide, image_folder, tmp_path):
    slide = write_slide("slides/s.tif")
    places = tmp_path / "annotations"
    places.mkdir()
    file = places / "s.geojson"

    def annotate(*squares):
        file.write_text(json.dumps({"type": "FeatureCollection", "features": [*squares]}))

    def tiled():
        settings = TilingSettings(size=32, mpp=1.0)
        return tile_slide(slide, settings, name="s.tif", annotations=file)

    annotate(_square("TUM", 0, 70))
    write_tileset(tmp_path / "tiles" / "s.h5", tiled())
    embed(tmp_path / "tiles", "--mpp", 1.0)
    archive = tmp_path / "archive"
    assert {"TUM", None} == set(_labels(archive).values())
    annotate(_square("STR", 0, 70), _square("TUM", 70, 140))
    result = patchknn("archive", "relabel", archive, "--annotations", places, "--by", "Ann")
    assert result.code == 0, result.err
    again = tiled()
    wanted = dict(zip(map(tuple, again.coords.tolist()), again.labels, strict=True))
    assert {(r.x, r.y): r.label for r in list_rows(open_archive(archive))} == wanted
    assert {"STR", "TUM"} <= set(wanted.values())
    assert {event.by for event in label_history(archive)} == {"Ann"}
    result = patchknn("archive", "relabel", archive, "--annotations", places)
    assert json.loads(result.out)["rows_relabelled"] == 0


def test_annotations_of_other_slides_are_an_error(embed, image_folder, tmp_path):
    embed(image_folder(2))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="has annotations of none of the slides"):
        corrections_by_annotations(open_archive(tmp_path / "archive"), tmp_path / "other")
