"""Foreign weights: other people's prefixes, heads and formats, and weights that do not belong."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from patchknn.encoder.weights import load_weights, read_state_dict
from patchknn.errors import InputError


@pytest.fixture
def trained():
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=5)


@pytest.fixture
def empty():
    torch.manual_seed(2)
    return timm.create_model("test_resnet", num_classes=0)


def _same_backbone(module, trained):
    return all(torch.equal(v, trained.state_dict()[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "model.module.net."])
def test_a_common_prefix_and_the_classifier_are_taken_off(tmp_path, trained, empty, prefix):
    file = tmp_path / "weights.safetensors"
    save_file({prefix + name: value for name, value in trained.state_dict().items()}, file)
    load_weights(empty, file)
    assert _same_backbone(empty, trained)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "teacher", None])
def test_torch_checkpoints_are_unwrapped(tmp_path, trained, empty, wrapper):
    file = tmp_path / "weights.pth"
    state = trained.state_dict()
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, file)
    load_weights(empty, file)
    assert _same_backbone(empty, trained)


def test_keys_of_the_rest_of_a_training_module_are_left_alone(tmp_path, trained, empty):
    state = {"backbone." + name: value for name, value in trained.state_dict().items()}
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": state | {"projector.weight": torch.zeros(3, 3)}}, file)
    load_weights(empty, file)
    assert _same_backbone(empty, trained)


def test_half_precision_becomes_float32(tmp_path, trained, empty):
    file = tmp_path / "weights.safetensors"
    halves = {n: v.half() if v.is_floating_point() else v for n, v in trained.state_dict().items()}
    save_file(halves, file)
    load_weights(empty, file)
    assert empty.conv1[0].weight.dtype == torch.float32


def test_position_embeddings_of_another_image_size_are_resampled(tmp_path):
    large = timm.create_model("test_vit", num_classes=0, img_size=64)
    small = timm.create_model("test_vit", num_classes=0, img_size=32)
    file = tmp_path / "weights.safetensors"
    save_file(large.state_dict(), file)
    load_weights(small, file)
    assert torch.equal(small.blocks[0].attn.qkv.weight, large.blocks[0].attn.qkv.weight)


def test_weights_of_another_backbone_name_the_keys(tmp_path, empty):
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), file)
    with pytest.raises(InputError) as caught:
        load_weights(empty, file)
    message = str(caught.value)
    assert "another backbone" in message
    assert "it lacks conv1.0.weight" in message
    assert "it has unknown blocks.0.attn" in message
    assert "more" in message


def test_weights_of_another_width_name_the_shapes(tmp_path, empty):
    state = empty.state_dict() | {"conv1.0.weight": torch.zeros(7, 3, 3, 3)}
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    with pytest.raises(InputError, match=r"other shapes for conv1.0.weight \(7, 3, 3, 3\) instead"):
        load_weights(empty, file)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"this is text\n" * 9])
def test_a_file_that_holds_no_weights_is_named(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_state_dict(file)


def test_a_missing_file_and_code_in_a_pickle_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_state_dict(tmp_path / "none.pth")
    file = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(InputError, match="plain tensors"):
        read_state_dict(file)
