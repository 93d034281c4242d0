"""An encoder that takes the middle of plain images is given it everywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from patchknn.archive.snapshot import open_archive
from patchknn.bundle import load_bundle
from patchknn.datasets.listing import iter_patches
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.saving import load_encoder
from patchknn.evaluation.pictures import PictureFinder
from patchknn.indexing.features import embed_patches


@pytest.fixture
def archive(embed, cropping_encoder, image_folder, tmp_path):
    """Nine images of 40 px, of which the encoder takes 32."""
    result, summary = embed(image_folder(9, side=40), encoder=cropping_encoder)
    assert (result.code, summary["rows"]) == (0, 9)
    return tmp_path / "archive"


def _middle(path):
    return np.array(Image.open(path))[4:36, 4:36]


def test_embed_stores_features_of_the_middle(archive, cropping_encoder, tmp_path):
    bundle = load_bundle(cropping_encoder)
    network = load_encoder(bundle)
    mean, std = np.array(bundle.description.mean), np.array(bundle.description.std)
    snapshot = open_archive(archive)
    for number in range(len(snapshot)):
        row = snapshot.row(number)
        shard, local = snapshot.shard_of(number)
        pixels = (_middle(tmp_path / "data" / row.id) / 255 - mean) / std
        with torch.no_grad():
            expected = network.backbone(torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float())
        np.testing.assert_allclose(shard.features[local], expected[0], rtol=2e-3, atol=1e-3)


def test_query_and_evaluate_see_the_same_middle(archive, patchknn, tmp_path):
    path = tmp_path / "data" / "B" / "004.png"
    for encoder in ((), ("--encoder", tmp_path / "archive" / "encoder")):
        result = patchknn(
            "query", archive, path, "--exclude-same", "none", "--k", 1, "--device", "cpu",
            "--workers", 0, *encoder,
        )  # fmt: skip
        assert result.code == 0, result.err
        answer = json.loads(result.out)
        assert answer["neighbours"][0]["id"] == "B/004.png"
        assert answer["neighbours"][0]["l2"] < 1e-3
    # What lies outside the middle changes nothing.
    framed = np.zeros((40, 40, 3), np.uint8)
    framed[4:36, 4:36] = _middle(path)
    Image.fromarray(framed).save(tmp_path / "framed.png")
    result = patchknn("query", archive, tmp_path / "framed.png", "--k", 1, "--device", "cpu")
    nearest = json.loads(result.out)["neighbours"][0]
    assert (nearest["id"], nearest["l2"] < 1e-3) == ("B/004.png", True)
    result = patchknn(
        "evaluate", archive, tmp_path / "data", "--exclude-same", "none", "--k", 1, "--device",
        "cpu", "--format", "ndjson",
    )  # fmt: skip
    assert json.loads(result.out)["accuracy"] == 1.0


def test_pictures_show_what_the_encoder_sees(archive, tmp_path):
    snapshot = open_archive(archive)
    with PictureFinder(snapshot) as finder:
        for number in range(len(snapshot)):
            path = tmp_path / "data" / snapshot.row(number).id
            np.testing.assert_array_equal(finder.of_row(number), _middle(path))


def test_patches_of_slides_are_not_cropped(cropping_encoder, encoder, write_slide):
    slide = write_slide("s.tif", size=128)
    patches = list(iter_patches([slide], size=32, mpp=0.5))
    features = [
        np.stack(
            [
                result.feature
                for result in embed_patches(
                    patches,
                    FeatureExtractor.from_bundle(load_bundle(folder), torch.device("cpu")),
                    size=32,
                    mpp=0.5,
                )
            ]
        )
        for folder in (encoder, cropping_encoder)
    ]
    assert len(patches) > 4
    np.testing.assert_array_equal(*features)
