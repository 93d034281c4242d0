"""The answer to a slide, as picture, GeoJSON, and with what in an archive is like it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from patchknn.archive.snapshot import open_archive
from patchknn.errors import ConflictError
from patchknn.slides.annotations import read_annotations
from patchknn.slides.class_colours import class_colour
from patchknn.slides.tint import strength
from patchknn.wholeslide.learning.batches import whole
from patchknn.wholeslide.prediction.explaining import Explainer
from patchknn.wholeslide.prediction.heatmap import draw_heatmap, relative, write_heatmap_geojson
from patchknn.wholeslide.prediction.predicting import predict_slide
from patchknn.wholeslide.prediction.slides_alike import SlidesAlike


@pytest.fixture
def predicted(make_grid, make_model, tmp_path):
    return predict_slide(make_model("mil"), tmp_path / "g.h5", make_grid(), 3)


def test_the_answer_is_that_of_the_network(predicted, make_model):
    with torch.no_grad():
        expected = make_model("mil").network(*whole(predicted.grid))[0].softmax(dim=0).tolist()
    told = predicted.as_json()
    assert told["prediction"] == ("no", "yes")[int(expected[1] > expected[0])]
    assert told["probability"] == pytest.approx(max(expected))
    assert told["probability:yes"] == pytest.approx(expected[1])
    assert [patch["saliency"] for patch in told["patches"]] == sorted(
        predicted.saliency[predicted.grid.mask], reverse=True
    )[:3]
    row, column = predicted.places[0].tolist()
    assert told["patches"][0]["id"] == f"s1.svs@{224 * column}_{224 * row}"


def test_no_tissue_is_a_status(make_grid, make_model, tmp_path):
    grid = make_grid(mask=np.zeros((3, 4), bool))
    told = predict_slide(make_model("cnn"), tmp_path, grid, 3).as_json()
    assert (told["prediction"], told["status"]) == (None, "no tissue")


def test_grids_of_another_encoder_are_refused(make_grid, make_model, tmp_path):
    with pytest.raises(ConflictError, match="the encoder is e, and the slide model"):
        predict_slide(make_model("cnn", encoder="f"), tmp_path, make_grid(), 3)


def test_the_hottest_place_of_the_picture_is_the_most_salient(predicted, tmp_path):
    draw_heatmap(tmp_path / "h.png", predicted, None)
    pixels = np.array(Image.open(tmp_path / "h.png")).astype(float)
    assert pixels.shape[1] > 7 * 8 + 100  # the legend beside it
    pixels = pixels[: 5 * 8, : 7 * 8]
    assert (pixels[4::8, 4::8][~predicted.grid.mask] == 255).all()
    redness = pixels[4::8, 4::8, 0] - pixels[4::8, 4::8, 2]
    assert tuple(np.unravel_index(redness.argmax(), redness.shape)) == tuple(predicted.places[0])


def test_on_the_slide_it_lies_where_the_patches_are(make_grid, make_model, tmp_path):
    slide = tmp_path / "s1.tif"
    white = np.full((5 * 224, 7 * 224, 3), 255, np.uint8)
    tifffile.imwrite(slide, white, tile=(128, 128), photometric="rgb")
    predicted = predict_slide(make_model("mil"), tmp_path / "g.h5", make_grid(), 3)
    draw_heatmap(tmp_path / "h.png", predicted, slide)
    pixels = np.array(Image.open(tmp_path / "h.png")).astype(float)
    assert pixels.shape[1] > 7 * 24 + 100
    pixels = pixels[: 5 * 24, : 7 * 24]
    for (row, column), share in zip(
        predicted.grid.places(), relative(predicted)[predicted.grid.mask], strict=True
    ):
        kept = 1 - strength(float(share))
        expected = 255 * kept + np.array(class_colour(1)) * (1 - kept)
        np.testing.assert_allclose(pixels[24 * row + 12, 24 * column + 12], expected, atol=1)
    assert (pixels[12::24, 12::24][~predicted.grid.mask] == 255).all()


def test_geojson_has_a_square_for_each_patch(predicted, tmp_path):
    write_heatmap_geojson(tmp_path / "s.geojson", predicted)
    regions = read_annotations(tmp_path / "s.geojson")
    assert len(regions) == predicted.grid.mask.sum()
    assert {region.label for region in regions} == {predicted.label}
    features = json.loads((tmp_path / "s.geojson").read_text())["features"]
    shares = [f["properties"]["measurements"]["Saliency (share of largest)"] for f in features]
    assert max(shares) == 1
    corner = features[0]["geometry"]["coordinates"][0][0]
    row, column = predicted.grid.places()[0].tolist()
    assert corner == [224 * column, 224 * row]


@pytest.fixture
def archived(archive, make_grid, make_model, tmp_path):
    """The first slide of the archive as a grid, whose four patches are all salient."""

    def make(name, patient, encoder=None, **more):
        _, bundle, rows = archive
        features = rows.features[:4].T.reshape(1, -1, 1, 4)
        fingerprint = encoder or bundle.fingerprint
        told = {"name": name, "patient": patient, "encoder": fingerprint, **more}
        grid = make_grid(features, np.ones((1, 4), bool), **told)
        model = make_model("mil", encoder=fingerprint)
        return predict_slide(model, tmp_path / "g.h5", grid, 4)

    return make


def test_neighbours_are_the_nearest_rows_of_other_patients(archive, archived):
    path, _, rows = archive
    explainer = Explainer(open_archive(path), 2)
    # Slide s1 and s3 are of patient P0; a slide of a patient elsewhere finds s1 itself.
    told = explainer.explained(archived("elsewhere.svs", "P9")).as_json()
    for answer in told["neighbours"]:
        x = int(answer["query"].rpartition("@")[2].split("_")[0])
        assert answer["neighbours"][0]["id"] == f"s1.svs@{x}_0"
        assert answer["neighbours"][0]["l2"] == 0
    told = explainer.explained(archived("s1.svs", "P0")).as_json()
    found_some = [answer for answer in told["neighbours"] if answer["neighbours"]]
    assert found_some  # codes by chance may have none within a quarter of their bits
    for answer in found_some:
        assert {n["source"] for n in answer["neighbours"]} == {"s2.svs"}
        x = int(answer["query"].rpartition("@")[2].split("_")[0])
        vector = rows.features[x // 224].astype(float)
        distances = np.linalg.norm(rows.features[4:8].astype(float) - vector, axis=1)
        found = answer["neighbours"][0]
        if answer["ball"] == 4:  # all rows of s2 were ranked
            assert found["l2"] == pytest.approx(distances.min())
        assert found["l2"] == pytest.approx(distances[found["x"] // 224])


@pytest.mark.parametrize("known_by", ["name", "content"])
def test_a_slide_whose_patient_the_archive_knows_is_not_explained_by_it(
    archive, archived, known_by
):
    """Slides s1 and s3 are of one patient."""
    explainer = Explainer(open_archive(archive[0]), 8, slides=lambda _: [{"slide": "s9"}])
    content = archive[2].sources[0].quickhash.hex()
    told = {"settings": {"content": content}} if known_by == "content" else {}
    name = "s1.svs" if known_by == "name" else "renamed.svs"
    answered = explainer.explained(archived(name, None, **told)).as_json()
    found = {n["source"] for answer in answered["neighbours"] for n in answer["neighbours"]}
    assert found == {"s2.svs"}
    assert answered["slides"] == [{"slide": "s9"}]


def test_a_slide_that_nobody_knows_is_explained_by_all(archive, archived):
    answered = Explainer(open_archive(archive[0]), 8).explained(archived("new.svs", None))
    neighbours = answered.as_json()["neighbours"]
    found = {n["source"] for answer in neighbours for n in answer["neighbours"]}
    assert {"s1.svs", "s3.svs"} <= found


def test_slides_alike_are_those_of_other_patients(archive, archived):
    snapshot = open_archive(archive[0])
    explainer = Explainer(snapshot, 2, slides=SlidesAlike(snapshot, 3))
    told = explainer.explained(archived("elsewhere.svs", "P9")).as_json()
    assert told["slides"][0]["slide"] == "s1.svs"
    assert told["slides"][0]["distance"] == 0
    assert len(told["slides"]) == 3
    told = explainer.explained(archived("s1.svs", "P0")).as_json()
    assert [slide["slide"] for slide in told["slides"]] == ["s2.svs"]


def test_archives_of_another_encoder_are_refused(archive, archived):
    explainer = Explainer(open_archive(archive[0]), 2)
    with pytest.raises(ConflictError, match="is of another encoder than"):
        explainer.explained(archived("s1.svs", "P0", encoder="other"))
