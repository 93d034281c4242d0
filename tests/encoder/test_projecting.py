"""Encoders on stored features: written, read again, and the same with and without the backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from patchknn.bundle import copy_bundle, load_bundle
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.mlp import Chained, FeatureMLP
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.projecting import FeatureProjector
from patchknn.encoder.saving import load_encoder, save_encoder
from patchknn.errors import ConflictError, DamageError, InputError

_CPU = torch.device("cpu")


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return create_backbone("test_resnet", input_size=32)


@pytest.fixture
def mlp(backbone):
    """An MLP as after training: no buffer is what it began as."""
    torch.manual_seed(1)
    mlp = FeatureMLP(backbone.feature_dim, 24, 10)
    mlp.fit_input(np.random.default_rng(0).normal(size=(50, backbone.feature_dim)))
    for _ in range(3):
        mlp(torch.randn(16, backbone.feature_dim) * 2 + 1)
    return mlp.eval()


def _save(directory, module, dim, backbone=None, n_classes=3, *, normalized=False):
    torch.manual_seed(2)
    classes = (n_classes,) if n_classes else ()
    network = EncoderNetwork(module, dim, 16, classes, normalized=normalized)
    fingerprint = save_encoder(
        directory,
        network,
        backbone,
        input_size=32,
        bits=16,
        tasks={"label": [f"class {i}" for i in range(n_classes)]} if n_classes else {},
        hash_method="learned",
        training={"epochs": 0},
        metrics={},
        mpp=0.5,
    )
    bundle = load_bundle(directory)
    assert bundle.fingerprint == fingerprint
    return network.eval(), bundle


def _stored(dim, dtype="float16", rows=37):
    return np.random.default_rng(3).normal(size=(rows, dim)).astype(dtype)


def test_projected_features_are_of_unit_length_where_the_encoder_says_so(tmp_path, mlp):
    _, plain = _save(tmp_path / "plain", mlp, 10)
    _, unit = _save(tmp_path / "unit", mlp, 10, normalized=True)
    stored = _stored(mlp.input_dim)
    raw, found = (FeatureProjector.from_bundle(b, _CPU).features(stored) for b in (plain, unit))
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_mlp_alone_is_read_again(tmp_path, mlp, dtype):
    network, bundle = _save(tmp_path / "e", mlp, 10)
    description = bundle.description
    assert (description.input, description.input_dim) == ("features", mlp.input_dim)
    assert description.projection == mlp.settings
    assert (description.backbone, description.feature_dim, description.mpp) == (None, 10, 0.5)
    stored = _stored(mlp.input_dim, dtype)
    projected = FeatureProjector.from_bundle(bundle, _CPU).features(stored)
    with torch.no_grad():
        expected = network(torch.from_numpy(stored.astype(np.float32)))
    assert projected.dtype == np.float32
    np.testing.assert_array_equal(projected, expected.features)
    np.testing.assert_array_equal(bundle.codes(projected), np.packbits(expected[1] > 0, axis=1))
    np.testing.assert_allclose(
        bundle.probabilities(projected), expected.logits[0].softmax(1), rtol=1e-4, atol=1e-5
    )


def test_a_backbone_and_an_mlp_embed_images_as_one_after_the_other(tmp_path, backbone, mlp):
    _, alone = _save(tmp_path / "alone", backbone.module, backbone.feature_dim, backbone)
    _, features_in = _save(tmp_path / "features", mlp, 10)
    _, images_in = _save(tmp_path / "both", Chained(backbone.module, mlp), 10, backbone)
    assert len({b.fingerprint for b in (alone, features_in, images_in)}) == 3
    description = images_in.description
    assert (description.input, description.input_dim) == ("image", None)
    assert description.projection == mlp.settings
    assert (description.backbone, description.feature_dim) == ("test_resnet", 10)
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    stored = FeatureExtractor.from_bundle(alone, _CPU).features(images)
    at_once = FeatureExtractor.from_bundle(images_in, _CPU).features(images)
    assert at_once.shape == (9, 10)
    for bundle in (features_in, images_in):
        then = FeatureProjector.from_bundle(bundle, _CPU).features(stored)
        np.testing.assert_allclose(then, at_once, rtol=1e-5, atol=1e-6)
    assert np.ptp(at_once, axis=0).min() > 1e-4  # images are told apart


def test_the_batch_changes_nothing(tmp_path, mlp):
    _, bundle = _save(tmp_path / "e", mlp.train(), 10)
    projector = FeatureProjector.from_bundle(bundle, _CPU)
    stored = _stored(mlp.input_dim)
    together = projector.features(stored)
    for batch in (1, 5):
        np.testing.assert_allclose(
            projector.features(stored, batch), together, rtol=1e-5, atol=1e-6
        )
    assert projector.features(stored[:0]).shape == (0, 10)


def test_features_as_they_are_have_codes_too(tmp_path):
    _, bundle = _save(tmp_path / "e", nn.Identity(), 20, n_classes=0)
    description = bundle.description
    assert (description.input, description.input_dim, description.projection) == (
        "features", 20, None,
    )  # fmt: skip
    stored = _stored(20)
    projected = FeatureProjector.from_bundle(bundle, _CPU).features(stored)
    np.testing.assert_array_equal(projected, stored.astype(np.float32))


def test_images_and_features_are_not_taken_for_each_other(tmp_path, backbone, mlp):
    _, alone = _save(tmp_path / "alone", backbone.module, backbone.feature_dim, backbone)
    network, features_in = _save(tmp_path / "features", mlp, 10)
    wanted = f"takes stored features of {mlp.input_dim} per patch, not images"
    with pytest.raises(ConflictError, match=wanted):
        FeatureExtractor.from_bundle(features_in, _CPU)
    assert not features_in.has_backbone
    extractor = FeatureExtractor(network, (0.5,) * 3, (0.5,) * 3, _CPU)
    with pytest.raises(ConflictError, match=f"takes stored features of {mlp.input_dim} per patch"):
        extractor.check_size(32)
    with pytest.raises(ConflictError, match="takes images, not stored features"):
        FeatureProjector.from_bundle(alone, _CPU)
    with pytest.raises(ConflictError, match="takes images, not stored features"):
        FeatureProjector(load_encoder(alone), _CPU)
    projector = FeatureProjector.from_bundle(features_in, _CPU)
    for shape in ((4, mlp.input_dim + 1), (mlp.input_dim,)):
        with pytest.raises(ConflictError, match=f"stored features of {mlp.input_dim} per patch"):
            projector.features(np.zeros(shape, np.float32))
    with pytest.raises(ConflictError, match="give a FeatureMLP"):
        _save(tmp_path / "wrong", backbone.module, backbone.feature_dim)


def test_a_bundle_without_its_network_or_with_another_is_named(tmp_path, mlp):
    _, bundle = _save(tmp_path / "e", mlp, 10)
    copy_bundle(bundle, tmp_path / "light", backbone=False)
    with pytest.raises(InputError, match="light has no network"):
        FeatureProjector.from_bundle(load_bundle(tmp_path / "light"), _CPU)
    file = tmp_path / "e" / "backbone.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(DamageError, match=r"backbone\.safetensors is damaged"):
        load_encoder(bundle)


def test_a_projection_of_a_later_patchknn_is_named(tmp_path, mlp):
    _, bundle = _save(tmp_path / "e", mlp, 10)
    later = bundle._replace(
        description=bundle.description._replace(projection=mlp.settings | {"kind": "tree"})
    )
    with pytest.raises(InputError, match="projects by 'tree', which this patchknn does not know"):
        load_encoder(later)
    later = bundle._replace(
        description=bundle.description._replace(projection=mlp.settings | {"depth": 4})
    )
    with pytest.raises(InputError, match=r"cannot make: .*depth"):
        load_encoder(later)
    later = bundle._replace(
        description=bundle.description._replace(projection=mlp.settings | {"hidden": 25})
    )
    with pytest.raises(InputError, match="is not the one it describes"):
        load_encoder(later)


def test_what_goes_in_is_said_in_the_file(tmp_path, mlp):
    _save(tmp_path / "e", mlp, 10)
    content = json.loads((tmp_path / "e" / "encoder.json").read_bytes())
    assert content["format_version"] == 2
    assert (content["input"], content["input_dim"]) == ("features", mlp.input_dim)
    assert content["projection"] == {
        "kind": "mlp",
        "input_dim": mlp.input_dim,
        "hidden": 24,
        "output_dim": 10,
    }
