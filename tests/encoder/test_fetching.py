"""What is fetched is what the hub has and ``--pretrained`` gives, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.fetching import fetch_weights
from patchknn.errors import ConflictError, InputError, UsageError

_PLAIN, _VIT = "timm/test_resnet.r160_in1k", "timm/test_vit.r160_in1k"


def _equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_file_holds_exactly_the_tensors_of_the_hub_but_the_classifier(hub, resnet, tmp_path):
    hub.hold(_PLAIN, resnet)
    fetched = fetch_weights("test_resnet", tmp_path / "w")
    assert fetched.file == tmp_path / "w" / "test_resnet.safetensors"
    assert _equal(
        load_file(fetched.file), {k: v for k, v in resnet.items() if not k.startswith("fc.")}
    )
    content = fetched.file.read_bytes()
    assert (fetched.bytes, fetched.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert fetched.description.license == "apache-2.0"
    assert fetched.description.origin == f"{hub.address}/{_PLAIN}"
    assert not fetched.kept
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["test_resnet.safetensors"]


@pytest.mark.parametrize("size", [None, 64])
def test_a_backbone_from_the_file_is_the_pretrained_one(hub, vit, tmp_path, size):
    hub.hold(_VIT, vit)
    fetched = fetch_weights("test_vit", tmp_path)
    pretrained = create_backbone("test_vit", input_size=size, pretrained=True)
    from_file = create_backbone("test_vit", input_size=size, weights=fetched.file)
    assert _equal(from_file.module.state_dict(), pretrained.module.state_dict())
    assert torch.equal(from_file.module.cls_token, vit["cls_token"])
    ours, theirs = (vars(backbone) | {"module": None} for backbone in (from_file, pretrained))
    assert ours == theirs


def test_files_of_torch_become_safetensors(hub, resnet, tmp_path):
    hub.hold_torch(_PLAIN, resnet)
    fetched = fetch_weights("test_resnet.r160_in1k", tmp_path)
    assert fetched.file.name == "test_resnet.r160_in1k.safetensors"
    assert torch.equal(load_file(fetched.file)["conv1.0.weight"], resnet["conv1.0.weight"])


def _of_someone(hub, vit):
    hub.hold(
        "someone/foundation",
        vit,
        architecture="test_vit",
        num_classes=1000,
        model_args={"img_size": 160, "global_pool": "avg", "fc_norm": False},
        pretrained_cfg={
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "input_size": [3, 160, 160],
            "num_classes": 1000,
            "classifier": "head",
            "license": "cc-by-nc-4.0",
        },
    )


def test_a_model_of_the_hub_needs_neither_hub_nor_cache_once_it_is_fetched(
    hub, vit, tmp_path, look_at, monkeypatch
):
    _of_someone(hub, vit)
    name = "hf-hub:someone/foundation"
    pretrained = create_backbone(name, input_size=160, pretrained=True)
    fetched = fetch_weights(name, tmp_path)
    assert fetched.file == tmp_path / "someone--foundation.safetensors"
    assert fetched.description.license == "cc-by-nc-4.0"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cold"))
    hub.asked.clear()
    from_file = create_backbone(name, input_size=160, weights=fetched.file)
    assert hub.asked == []
    assert _equal(from_file.module.state_dict(), pretrained.module.state_dict())
    ours, theirs = (vars(backbone) | {"module": None} for backbone in (from_file, pretrained))
    assert ours == theirs
    assert ours["mean"] == (0.1, 0.2, 0.3)
    assert ours["model_args"] == {"img_size": 160, "global_pool": "avg", "fc_norm": False}


def test_weights_from_elsewhere_do_not_say_what_a_model_of_the_hub_is(hub, vit, tmp_path, look_at):
    file = tmp_path / "plain.safetensors"
    save_file({name: value for name, value in vit.items() if "head" not in name}, file)
    _of_someone(hub, vit)
    backbone = create_backbone("hf-hub:someone/foundation", input_size=160, weights=file)
    assert backbone.std == (0.4, 0.5, 0.6)
    assert hub.asked


def test_a_local_folder_becomes_a_file(tmp_path, vit, look_at):
    look_at("http://127.0.0.1:9")  # where nothing is
    folder = tmp_path / "finetuned"
    folder.mkdir()
    known = {"classifier": "head", "num_classes": 1000, "input_size": [3, 160, 160]}
    description = {"architecture": "test_vit", "pretrained_cfg": known}
    (folder / "config.json").write_text(json.dumps(description))
    save_file(vit, folder / "model.safetensors")
    fetched = fetch_weights(f"local-dir:{folder}", tmp_path / "w")
    assert fetched.file.name == "finetuned.safetensors"
    assert fetched.description.origin == str(folder)
    assert torch.equal(load_file(fetched.file)["cls_token"], vit["cls_token"])


def test_weights_with_an_address_of_their_own_are_fetched_from_there(
    hub, resnet, tmp_path, monkeypatch
):
    from dataclasses import replace

    from timm.models import _registry

    hub.hold_torch("elsewhere", resnet)
    url = f"{hub.address}/elsewhere/resolve/main/pytorch_model.bin"
    known = _registry._model_pretrained_cfgs
    there = replace(known["test_resnet.r160_in1k"], hf_hub_id=None, url=url)
    monkeypatch.setitem(known, "test_resnet.r160_in1k", there)
    fetched = fetch_weights("test_resnet.r160_in1k", tmp_path / "w")
    assert fetched.description.origin == url
    assert torch.equal(load_file(fetched.file)["conv1.0.weight"], resnet["conv1.0.weight"])
    gone = replace(there, url=url.replace("elsewhere", "gone"))
    monkeypatch.setitem(known, "test_resnet.r160_in1k", gone)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cold"))
    with pytest.raises(InputError, match=r"pytorch_model.bin answers 401: it has these weights no"):
        fetch_weights("test_resnet.r160_in1k", tmp_path / "v")


def test_a_file_that_is_there_is_kept_without_asking_and_force_fetches_it_again(
    hub, resnet, tmp_path
):
    hub.hold(_PLAIN, resnet)
    first = fetch_weights("test_resnet", tmp_path)
    before = first.file.stat()
    hub.asked.clear()
    again = fetch_weights("test_resnet", tmp_path)
    assert again.kept
    assert (again.sha256, again.description) == (first.sha256, first.description)
    assert hub.asked == []
    assert first.file.stat().st_ino == before.st_ino
    forced = fetch_weights("test_resnet", tmp_path, force=True)
    assert (forced.kept, forced.sha256) == (False, first.sha256)
    assert first.file.stat().st_ino != before.st_ino


def test_model_arguments_are_asked_for_again_by_who_uses_the_file(hub, vit, tmp_path):
    hub.hold(_VIT, vit)
    arguments = {"global_pool": "avg", "fc_norm": False}
    fetched = fetch_weights("test_vit", tmp_path, model_args=arguments)
    backbone = create_backbone(
        "test_vit", input_size=160, weights=fetched.file, model_args=arguments
    )
    assert torch.equal(backbone.module.norm.weight, vit["norm.weight"])
    assert fetch_weights("test_vit", tmp_path, model_args=arguments).kept
    with pytest.raises(
        ConflictError, match=r"holds what other --model-arg make of test_vit \(\{'fc"
    ):
        fetch_weights("test_vit", tmp_path)


def test_what_else_is_in_its_place_is_not_replaced_unasked(hub, resnet, tmp_path):
    hub.hold(_PLAIN, resnet)
    file = tmp_path / "test_resnet.safetensors"
    save_file({"mine": torch.zeros(2)}, file)
    with pytest.raises(ConflictError) as caught:
        fetch_weights("test_resnet", tmp_path)
    assert str(caught.value) == (
        f"{file} holds weights of unknown origin; give another DIR, or --force to replace it."
    )
    whole = fetch_weights("test_resnet", tmp_path, force=True)
    whole.file.write_bytes(whole.file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"not a readable safetensors .*give --force to fetch it"):
        fetch_weights("test_resnet", tmp_path)
    assert fetch_weights("test_resnet", tmp_path, force=True).sha256 == whole.sha256


def test_a_full_disk_is_named_and_nothing_is_half_written(hub, resnet, tmp_path, little_room):
    hub.hold(_PLAIN, resnet)
    fetch_weights("test_resnet", tmp_path / "warm")
    with little_room(1000), pytest.raises(OSError, match="File too large") as caught:
        fetch_weights("test_resnet", tmp_path / "w")
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "w" / "test_resnet.safetensors")
    assert list((tmp_path / "w").iterdir()) == []


def test_a_cache_on_a_full_disk_is_named(hub, resnet, tmp_path, little_room):
    hub.hold(_PLAIN, resnet)
    with little_room(1000), pytest.raises(OSError, match="File too large") as caught:
        fetch_weights("test_resnet", tmp_path / "w")
    assert str(tmp_path / "cache") in caught.value.filename
    assert not (tmp_path / "w").exists()


def test_names_that_are_no_model_name_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="'resnet5'; the nearest are resnet50"):
        fetch_weights("resnet5", tmp_path)
    with pytest.raises(
        UsageError, match=r"no weights 'a9' of test_resnet; it has test_resnet\.r160"
    ):
        fetch_weights("test_resnet.a9", tmp_path)
    with pytest.raises(UsageError, match="There are no pretrained weights of nic_cnn"):
        fetch_weights("nic_cnn", tmp_path)
    with pytest.raises(UsageError, match="hf-hub:a/b/c is not of the form hf-hub:owner/model"):
        fetch_weights("hf-hub:a/b/c", tmp_path)
    with pytest.raises(InputError, match=r"cannot be read: Config file not found"):
        fetch_weights(f"local-dir:{tmp_path}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_timm_has_given_up_is_still_one(hub, tmp_path):
    current = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=224)
    hub.hold("timm/vit_tiny_patch16_224.augreg_in21k", current.state_dict())
    fetched = fetch_weights("vit_tiny_patch16_224_in21k", tmp_path)
    assert _equal(load_file(fetched.file), current.state_dict())


def test_weights_that_do_not_fit_ask_for_model_arguments(hub, vit, tmp_path):
    hub.hold(
        "someone/scaled",
        {**vit, "blocks.0.ls1.gamma": torch.ones(64)},
        architecture="test_vit",
        num_classes=1000,
        pretrained_cfg={"num_classes": 0, "input_size": [3, 160, 160]},
    )
    with pytest.raises(InputError, match=r"do not fit it; give the --model-arg .*ls1\.gamma"):
        fetch_weights("hf-hub:someone/scaled", tmp_path)
