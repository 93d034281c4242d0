"""An encoder written and read again gives the same features, and NumPy agrees on its heads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from patchknn.bundle import load_bundle
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import load_encoder, save_encoder
from patchknn.errors import DamageError, InputError

_CPU = torch.device("cpu")


def _save(directory, name, *, n_classes=3, bits=16, model_args=None, normalized=False):
    torch.manual_seed(0)
    backbone = create_backbone(name, input_size=32, model_args=model_args)
    for key, value in backbone.module.named_buffers():  # batch norm as after training
        if key.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
    network = EncoderNetwork(
        backbone.module,
        backbone.feature_dim,
        bits,
        (n_classes,) if n_classes else (),
        normalized=normalized,
    )
    fingerprint = save_encoder(
        directory,
        network,
        backbone,
        input_size=32,
        bits=bits,
        tasks={"label": [f"class {i}" for i in range(n_classes)]} if n_classes else {},
        hash_method="learned",
        training={"epochs": 0},
        metrics={},
    )
    return network, backbone, fingerprint


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_nfnet"])
def test_a_reloaded_encoder_gives_identical_features(tmp_path, name):
    network, backbone, fingerprint = _save(tmp_path / "encoder", name)
    bundle = load_bundle(tmp_path / "encoder")
    assert bundle.fingerprint == fingerprint
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    before = FeatureExtractor(network, backbone.mean, backbone.std, _CPU).features(images)
    after = FeatureExtractor.from_bundle(bundle, _CPU).features(images)
    assert before.dtype == np.float32
    np.testing.assert_array_equal(before, after)


def test_features_of_unit_length_stay_so(tmp_path):
    _save(tmp_path / "plain", "test_resnet")
    network, _, _ = _save(tmp_path / "encoder", "test_resnet", normalized=True)
    bundle = load_bundle(tmp_path / "encoder")
    assert bundle.description.normalized
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    raw = FeatureExtractor.from_bundle(load_bundle(tmp_path / "plain"), _CPU).features(images)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    for averaged in (1, 8):  # means of such features are made so again
        extractor = FeatureExtractor.from_bundle(bundle, _CPU, averaged=averaged)
        features = extractor.features(images)
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
        if averaged == 1:
            np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-7)
    # The heads see what is stored.
    inputs = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        output = network.eval()(inputs)
        np.testing.assert_allclose(output.features.norm(dim=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(
            output.hash_vectors, network.hash_layer(output.features).numpy()
        )
    content = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert content["format_version"] == 2
    assert "normalized" not in json.loads((tmp_path / "plain" / "encoder.json").read_text())


def test_the_heads_in_numpy_are_those_of_the_network(tmp_path):
    _save(tmp_path / "encoder", "test_resnet")
    bundle = load_bundle(tmp_path / "encoder")
    network = load_encoder(bundle)
    features = torch.randn(7, bundle.description.feature_dim)
    with torch.inference_mode():
        output = network.heads(features)
    np.testing.assert_allclose(
        bundle.hash_vectors(features.numpy()), output.hash_vectors, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        bundle.probabilities(features.numpy()), output.logits[0].softmax(1), rtol=1e-4, atol=1e-5
    )
    assert bundle.description.tasks[0]["classes"] == ["class 0", "class 1", "class 2"]


def test_without_classes_there_is_no_classifier(tmp_path):
    _save(tmp_path / "encoder", "test_resnet", n_classes=0)
    bundle = load_bundle(tmp_path / "encoder")
    assert bundle.classifier is None
    assert bundle.description.tasks == ()
    assert load_encoder(bundle)(torch.zeros(1, 3, 32, 32)).logits == ()


def test_a_bundle_without_backbone_or_with_changed_weights_is_named(tmp_path):
    _save(tmp_path / "encoder", "test_resnet")
    bundle = load_bundle(tmp_path / "encoder")
    file = tmp_path / "encoder" / "backbone.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(DamageError, match=r"backbone\.safetensors is damaged"):
        load_encoder(bundle)
    file.unlink()
    with pytest.raises(InputError, match="has no backbone"):
        load_encoder(bundle)


def test_buffers_are_float32_and_counters_stay_integers(tmp_path):
    _save(tmp_path / "encoder", "test_resnet")
    header = (tmp_path / "encoder" / "backbone.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    entries = json.loads(header[8 : 8 + length])
    kinds = {entry["dtype"] for name, entry in entries.items() if name != "__metadata__"}
    assert kinds == {"F32", "I64"}
