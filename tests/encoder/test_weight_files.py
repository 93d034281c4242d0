"""Files of weights that say what they hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from patchknn.encoder.weight_files import (
    WeightsDescription,
    read_description,
    weights_file_name,
    write_weights,
)
from patchknn.errors import InputError

_TOLD = WeightsDescription(
    name="hf-hub:laboratoire/modèle",
    asked_args={"img_size": 96, "act_layer": None},
    architecture="test_vit",
    model_args={"reg_tokens": [1, 2]},
    configuration={"mean": [0.5, 0.5, 0.5]},
    license=None,
    origin="https://example.org",
    timm_version="1.0",
)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vit_small_patch16_224.dino", "vit_small_patch16_224.dino.safetensors"),
        ("hf-hub:owner/model@v1.0", "owner--model@v1.0.safetensors"),
        ("local-dir:/data/my models/uni/", "uni.safetensors"),
        ("local-dir:fine tuned;rm", "fine_tuned_rm.safetensors"),
    ],
)
def test_a_name_becomes_a_file_name(name, file):
    assert weights_file_name(name) == file


def test_a_description_comes_back_and_the_same_weights_are_the_same_bytes(tmp_path):
    tensors = {name: torch.arange(6.0).reshape(2, 3) for name in "cab"}
    write_weights(tmp_path / "w.safetensors", tensors, _TOLD)
    write_weights(tmp_path / "v.safetensors", dict(sorted(tensors.items())), _TOLD)
    assert read_description(tmp_path / "w.safetensors") == _TOLD
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "wv")
    assert first == second


def test_tensors_that_share_memory_or_lie_askew_are_written_as_they_are(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "tied": whole, "column": whole[:, 1], "turned": whole.T}
    write_weights(tmp_path / "w.safetensors", tensors, _TOLD)
    read = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(read[name], value) for name, value in tensors.items())


def test_files_of_others_say_nothing_and_damaged_ones_are_named(tmp_path):
    file = tmp_path / "w.safetensors"
    assert read_description(file) is None
    assert read_description(tmp_path / "w.pth") is None
    save_file({"a": torch.zeros(2)}, file)
    assert read_description(file) is None
    save_file({"a": torch.zeros(2)}, file, {"patchknn": "{}"})
    assert read_description(file) is None
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"w\.safetensors is not a readable safetensors file"):
        read_description(file)


def test_a_newer_format_is_refused(tmp_path):
    write_weights(tmp_path / "w.safetensors", {"a": torch.zeros(2)}, replace(_TOLD))
    newer = json.dumps({"format": 2, "name": "x"})
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", {"patchknn": newer})
    with pytest.raises(InputError, match="of a newer format than this patchknn knows; update it"):
        read_description(tmp_path / "w.safetensors")
