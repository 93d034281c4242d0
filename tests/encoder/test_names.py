"""Names of backbones, and where their weights lie."""

from __future__ import annotations

import pytest
import torch

from patchknn.encoder.names import Model, resolve
from patchknn.encoder.weight_files import WeightsDescription, write_weights
from patchknn.errors import UsageError


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("test_resnet", "timm/test_resnet.r160_in1k"),
        ("resnet18.tv_in1k", "timm/resnet18.tv_in1k"),
        ("vit_tiny_patch16_224_in21k", "timm/vit_tiny_patch16_224.augreg_in21k"),
        ("gcvit_tiny", "https://github.com/"),
        ("nic_cnn", ""),
    ],
)
def test_timm_knows_where_weights_of_its_names_lie(name, place):
    model = resolve(name, "")
    assert model.architecture == name
    assert model.place.startswith(place)
    assert bool(model.place) is bool(place)


def test_weights_that_timm_does_not_have_are_named_with_those_it_has():
    with pytest.raises(UsageError) as caught:
        resolve("test_resnet.a9", "")
    assert str(caught.value) == (
        "timm has no weights 'a9' of test_resnet; it has test_resnet.r160_in1k."
    )


def test_a_file_that_was_fetched_under_a_name_says_what_it_stands_for(hub, tmp_path):
    told = WeightsDescription(
        name="hf-hub:lab/uni",
        asked_args={},
        architecture="test_vit",
        model_args={"img_size": 32},
        configuration={"mean": [0.1, 0.2, 0.3]},
        license=None,
        origin=None,
        timm_version="1",
    )
    file = tmp_path / "w.safetensors"
    write_weights(file, {"a": torch.zeros(1)}, told)
    expected = Model("test_vit", {"img_size": 32}, {"mean": [0.1, 0.2, 0.3]})
    assert resolve("hf-hub:lab/uni", "", file) == expected
    assert hub.asked == []
    hub.hold("lab/other", {"a": torch.zeros(1)}, architecture="test_resnet")
    assert resolve("hf-hub:lab/other", "", file).architecture == "test_resnet"
