"""Paper C's encoder: its parameters counted by hand, its formula, and its way through a bundle."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from patchknn.bundle import load_bundle
from patchknn.encoder.backbones import bare_backbone, create_backbone
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder
from patchknn.errors import InputError, UsageError

_CPU = torch.device("cpu")


def _settled(module, seed=0):
    """The module with batch norm as after training."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.named_buffers():
        if name.endswith("running_mean"):
            value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module


def test_the_parameters_are_those_counted_by_hand():
    backbone = create_backbone("nic_cnn")
    convolutions = 128 * 3 * 9 + 3 * (128 * 128 * 9)
    norms = 4 * (128 + 128)
    dense = (3 * 3 * 128) * 128 + 128
    counted = sum(parameter.numel() for parameter in backbone.module.parameters())
    assert counted == convolutions + norms + dense == 594_432
    assert (backbone.feature_dim, backbone.input_size) == (128, 64)
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)


def test_one_image_by_a_literal_loop_in_float64():
    module = _settled(create_backbone("nic_cnn", input_size=31).module)
    state = {name: value.double().numpy() for name, value in module.state_dict().items()}
    image = np.random.default_rng(0).uniform(-1, 1, (3, 31, 31))
    maps = image
    for layer in range(4):
        at = f"blocks.{layer}"
        side = (maps.shape[1] - 3) // 2 + 1
        result = np.empty((128, side, side))
        for row in range(side):
            for column in range(side):
                field = maps[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                value = (state[f"{at}.conv.weight"] * field).sum(axis=(1, 2, 3))
                value = (value - state[f"{at}.norm.running_mean"]) / np.sqrt(
                    state[f"{at}.norm.running_var"] + 1e-5
                )
                value = value * state[f"{at}.norm.weight"] + state[f"{at}.norm.bias"]
                result[:, row, column] = np.where(value > 0, value, 0.2 * value)
        maps = result
    expected = state["dense.weight"] @ maps.reshape(-1) + state["dense.bias"]
    with torch.no_grad():
        output = module(torch.from_numpy(image[None].astype(np.float32)))
    np.testing.assert_allclose(output[0], expected, rtol=1e-4, atol=1e-5)
    assert (expected < 0).any()  # nothing cuts the features off


def test_black_and_white_are_minus_one_and_one():
    backbone = create_backbone("nic_cnn")
    network = EncoderNetwork(_settled(backbone.module), 128, 16, ())
    extractor = FeatureExtractor(network, backbone.mean, backbone.std, _CPU)
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    pixels[1] = 255
    with torch.no_grad():
        ends = torch.stack([torch.full((3, 64, 64), -1.0), torch.full((3, 64, 64), 1.0)])
        expected = backbone.module(ends)
    np.testing.assert_allclose(extractor.features(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "inputs"), [(31, 1), (64, 9), (96, 25), (224, 169)])
def test_other_sizes_size_the_dense_layer(size, inputs):
    backbone = create_backbone("nic_cnn", input_size=size)
    assert backbone.module.dense.in_features == inputs * 128
    assert backbone.feature_dim == 128
    again = bare_backbone(backbone.name, backbone.model_args)
    again.load_state_dict(backbone.module.state_dict())


def test_a_size_that_cannot_be_is_one_sentence():
    with pytest.raises(UsageError, match="nic_cnn needs images of at least 31 px; change --size"):
        create_backbone("nic_cnn", input_size=30)
    network = EncoderNetwork(create_backbone("nic_cnn").module, 128, 16, ())
    extractor = FeatureExtractor(network, (0.5,) * 3, (0.5,) * 3, _CPU)
    with pytest.raises(UsageError, match=r"cannot take images of 96 px .*built for images of 64"):
        extractor.check_size(96)


def test_pretrained_weights_that_nobody_has_are_named():
    with pytest.raises(UsageError, match="no pretrained weights of nic_cnn: leave --pretrained"):
        create_backbone("nic_cnn", pretrained=True)
    with pytest.raises(InputError):  # has some, which cannot be had here
        create_backbone("local-dir:nowhere", pretrained=True)


def test_a_head_is_put_on_and_taken_off_as_on_any_timm_model():
    create_backbone("nic_cnn")  # registers the name
    assert "nic_cnn" in timm.list_models()
    model = timm.create_model("nic_cnn", num_classes=9).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert model(images).shape == (2, 9)
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        model.reset_classifier(0)
        assert torch.equal(model(images), features)


@pytest.mark.parametrize("size", [64, 40])
def test_a_bundle_of_it_gives_the_same_features_again(tmp_path, size):
    backbone = create_backbone("nic_cnn", input_size=size)
    network = EncoderNetwork(_settled(backbone.module), backbone.feature_dim, 16, ())
    fingerprint = save_encoder(
        tmp_path / "encoder",
        network,
        backbone,
        input_size=size,
        bits=16,
        tasks={},
        hash_method="learned",
        training={},
        metrics={},
        mpp=1.0,
    )
    bundle = load_bundle(tmp_path / "encoder")
    assert bundle.fingerprint == fingerprint
    assert bundle.description.mean == (0.5, 0.5, 0.5)
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    before = FeatureExtractor(network, backbone.mean, backbone.std, _CPU).features(images)
    after = FeatureExtractor.from_bundle(bundle, _CPU).features(images)
    assert np.ptp(before, axis=0).min() > 0
    np.testing.assert_array_equal(before, after)


def test_its_weights_come_from_a_file(tmp_path):
    model = create_backbone("nic_cnn").module
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pth")
    other = create_backbone("nic_cnn", weights=tmp_path / "w.pth").module
    assert torch.equal(other.dense.weight, model.dense.weight)
