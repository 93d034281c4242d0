"""From patches to features: order, errors in their places, and a literal forward pass."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from patchknn.bundle import load_bundle
from patchknn.datasets.listing import iter_patches
from patchknn.datasets.patches import Problem
from patchknn.encoder.saving import load_encoder
from patchknn.indexing.features import embed_patches

_HERE = {"size": 32, "mpp": 0.5}


def _features(results):
    return np.stack([result.feature for result in results])


@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_those_of_a_literal_forward_pass_in_order(
    encoder, extractor, image_folder, workers
):
    patches = list(iter_patches([image_folder(11)], **_HERE))
    results = list(embed_patches(patches, extractor, **_HERE, batch_size=4, workers=workers))
    assert [result.patch for result in results] == patches
    bundle = load_bundle(encoder)
    network = load_encoder(bundle)
    mean, std = np.array(bundle.description.mean), np.array(bundle.description.std)
    for result in results:
        pixels = np.asarray(Image.open(result.patch.path)) / 255
        image = torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)[None]).float()
        with torch.no_grad():
            expected = network.backbone(image)[0].numpy()
        np.testing.assert_allclose(result.feature, expected, rtol=1e-3, atol=1e-5)


def test_batches_of_one_and_of_eight_agree_within_float16(extractor, image_folder):
    patches = list(iter_patches([image_folder(10)], **_HERE))
    single = _features(embed_patches(patches, extractor, **_HERE, batch_size=1))
    eight = _features(embed_patches(patches, extractor, **_HERE, batch_size=8))
    np.testing.assert_allclose(single, eight, rtol=2**-11, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_problems_and_unreadable_images_stay_in_their_places(extractor, image_folder, workers):
    folder = image_folder(9)
    (folder / "A" / "003.png").write_text("this is text, not an image")
    patches = list(iter_patches([folder], **_HERE))
    items = [*patches[:4], Problem("lost.png", "lost.png does not exist."), *patches[4:]]
    results = list(embed_patches(iter(items), extractor, **_HERE, batch_size=3, workers=workers))
    assert [result.patch for result in results] == items
    wrong = {n: result.error for n, result in enumerate(results) if result.error}
    assert sorted(wrong) == [1, 4]
    assert "003.png is not an image" in wrong[1]
    assert wrong[4] == "lost.png does not exist."
    assert all((result.feature is None) == (result.error is not None) for result in results)


def test_a_feature_that_is_not_finite_is_an_error_by_name(extractor, image_folder):
    patches = list(iter_patches([image_folder(4)], **_HERE))
    usual = extractor.tensor_features

    def poisoned(images):
        features = usual(images)
        features[2, 5] = np.nan
        return features

    extractor.tensor_features = poisoned
    results = list(embed_patches(patches, extractor, **_HERE))
    assert [result.feature is None for result in results] == [False, False, True, False]
    assert results[2].error.startswith(f"{patches[2].id}: the encoder gives features that are not")


def test_thumbnails_are_small_jpegs_of_the_patch(extractor, image_folder):
    patches = list(iter_patches([image_folder(3)], **_HERE))
    for result in embed_patches(patches, extractor, **_HERE, thumbnail_px=16):
        with Image.open(BytesIO(result.thumbnail)) as image:
            assert (image.format, image.size) == ("JPEG", (16, 16))
            assert (
                abs(np.asarray(image).mean() - np.asarray(Image.open(result.patch.path)).mean()) < 5
            )


def test_a_stream_is_drawn_only_a_little_ahead(extractor, image_folder):
    patches = list(iter_patches([image_folder(12)], **_HERE))
    drawn = 0

    def stream():
        nonlocal drawn
        for patch in patches:
            drawn += 1
            yield patch

    results = embed_patches(stream(), extractor, **_HERE, batch_size=2)
    next(results)
    assert drawn <= 4


def test_patches_of_a_slide_are_read_from_it(extractor, write_slide):
    patches = list(iter_patches([write_slide("s.tif")], **_HERE))
    results = list(embed_patches(patches, extractor, **_HERE, batch_size=16))
    assert len(results) == len(patches) > 20
    assert all(result.error is None for result in results)
