"""Backbones by name, their arguments, and what is said where one cannot be had."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from patchknn.encoder.backbones import create_backbone, parse_model_args
from patchknn.errors import InputError, UsageError


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_the_feature_dim_is_that_of_a_real_forward_pass(name):
    backbone = create_backbone(name, input_size=64)
    output = backbone.module(torch.zeros(2, 3, 64, 64))
    assert output.shape == (2, backbone.feature_dim)
    assert backbone.timm_version == timm.__version__


def test_mean_std_and_size_come_from_timm_unless_given():
    configuration = timm.create_model("test_vit").pretrained_cfg
    backbone = create_backbone("test_vit")
    assert backbone.mean == tuple(configuration["mean"])
    assert backbone.input_size == configuration["input_size"][-1]
    own = create_backbone("test_vit", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert (own.mean, own.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_transformer_is_built_for_the_size_asked_for():
    backbone = create_backbone("test_vit", input_size=64)
    assert backbone.model_args == {"img_size": 64}


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(UsageError, match="'resnet5'; the nearest are resnet50"):
        create_backbone("resnet5")
    with pytest.raises(UsageError, match="hf-hub:owner/model"):
        create_backbone("owner/model")
    with pytest.raises(UsageError, match="begins with hf-hub: or local-dir:"):
        create_backbone("http:model")


def test_model_arguments_are_parsed_and_a_wrong_one_is_named():
    parsed = parse_model_args(["pad_type=same", "img_size=96", "a=true", "b=none", "c=(1, 2)"])
    assert parsed == {"pad_type": "same", "img_size": 96, "a": True, "b": None, "c": [1, 2]}
    with pytest.raises(UsageError, match="'pad_type' is not of the form NAME=VALUE"):
        parse_model_args(["pad_type"])
    with pytest.raises(UsageError, match="no_such_thing"):
        create_backbone("test_resnet", input_size=32, model_args={"no_such_thing": 1})


def test_layers_are_given_by_name_as_foundation_models_need_them():
    arguments = parse_model_args(["mlp_layer=timm.layers.SwiGLUPacked", "act_layer=torch.nn.SiLU"])
    backbone = create_backbone("test_vit", input_size=32, model_args=arguments)
    assert type(backbone.module.blocks[0].mlp).__name__ == "GluMlp"
    assert json.dumps(backbone.model_args)  # goes into the bundle as text
    with pytest.raises(UsageError, match=r"act_layer=torch\.nn\.Silo: there is no such layer"):
        create_backbone("test_vit", input_size=32, model_args={"act_layer": "torch.nn.Silo"})


def test_an_image_size_that_a_backbone_cannot_take_names_the_option():
    with pytest.raises(UsageError, match="--size"):
        create_backbone("test_vit", input_size=40, model_args={"img_size": 32})


def test_maps_instead_of_vectors_are_refused():
    with pytest.raises(UsageError, match="global_pool=avg"):
        create_backbone("test_resnet", input_size=32, model_args={"global_pool": ""})


def test_offline_names_the_command_that_helps(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = {"img_size": 32, "act_layer": "torch.nn.SiLU"}
    for name, pretrained, file in (
        ("test_vit", True, "test_vit"),
        ("hf-hub:nobody/nothing", False, "nobody--nothing"),
    ):
        with pytest.raises(InputError) as caught:
            create_backbone(name, input_size=32, pretrained=pretrained, model_args=asked)
        assert str(caught.value) == (
            f"The pretrained weights of {name} cannot be had, as HF_HUB_OFFLINE is set and "
            f"{tmp_path} does not hold them: run 'patchknn weights fetch {name} DIR --model-arg "
            "img_size=32 --model-arg act_layer=torch.nn.SiLU' on a node with internet, such as a "
            f"login node, and give --weights DIR/{file}.safetensors here."
        )


def test_a_local_folder_gives_architecture_arguments_and_weights(tmp_path):
    torch.manual_seed(3)
    module = timm.create_model("test_vit", num_classes=0, img_size=64)
    description = {
        "architecture": "test_vit",
        "num_classes": 0,
        "model_args": {"img_size": 64},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "input_size": [3, 64, 64]},
    }
    (tmp_path / "config.json").write_text(json.dumps(description))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    backbone = create_backbone(f"local-dir:{tmp_path}", pretrained=True)
    assert backbone.name == "test_vit"
    assert backbone.model_args == {"img_size": 64}
    assert backbone.mean == (0.1, 0.2, 0.3)
    assert backbone.input_size == 64
    assert torch.equal(backbone.module.pos_embed, module.pos_embed)


def test_pretrained_and_weights_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="exclude each other"):
        create_backbone("test_resnet", pretrained=True, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenetv2_100", "mobilenetv2_100_tflite_imagenet.f32.safetensors"),
        ("mobilenetv2_035", "mobilenetv2_035_keras_imagenet_features.f32.safetensors"),
    ],
)
def test_real_weights_load_with_and_without_a_head(shared_data, name, file):
    weights = shared_data / "weights" / file
    arguments = parse_model_args(["pad_type=same"])
    backbone = create_backbone(name, input_size=32, weights=weights, model_args=arguments)
    read, state = load_file(weights), backbone.module.state_dict()
    assert all(torch.equal(state[key], read[key]) for key in state)
    assert backbone.feature_dim == 1280
