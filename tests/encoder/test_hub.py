"""A hub that does not answer is not waited for, and its cache serves instead."""

from __future__ import annotations

import logging
import socket
import warnings

import pytest
import torch
from huggingface_hub import constants

from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.fetching import fetch_weights
from patchknn.encoder.hub import asking, offline
from patchknn.errors import InputError

_PLAIN = "timm/test_resnet.r160_in1k"
_TRAIN = (
    "run 'patchknn weights fetch test_resnet DIR' on a node with internet, such as a login node, "
    "and give --weights DIR/test_resnet.safetensors here."
)


@pytest.fixture
def deaf():
    """An address that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody():
    """An address where nothing listens: a socket that is bound keeps others away."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_where_nothing_listens_the_sentence_names_host_reason_and_command(
    look_at, nobody, tmp_path
):
    look_at(f"http://{nobody}")
    had = "The pretrained weights of test_resnet cannot be had"
    with pytest.raises(InputError) as caught:
        create_backbone("test_resnet", pretrained=True)
    why = f"as {nobody} cannot be reached (Connection refused)"
    assert str(caught.value) == f"{had}, {why}: {_TRAIN}"
    with pytest.raises(InputError) as caught:
        fetch_weights("test_resnet", tmp_path / "w")
    here = "run this on a node with internet, such as a login node."
    assert str(caught.value) == f"{had}, {why}: {here}"
    assert not (tmp_path / "w").exists()


def test_where_nothing_answers_the_patience_is_that_of_the_hub_once(look_at, deaf, monkeypatch):
    look_at(f"http://{deaf}")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    with pytest.raises(InputError) as caught:
        create_backbone("test_resnet", pretrained=True)
    assert str(caught.value) == (
        f"The pretrained weights of test_resnet cannot be had, as {deaf} cannot be reached "
        f"(no answer in time): {_TRAIN}"
    )


def test_a_hub_that_is_down_says_so(hub):
    hub.refusals[_PLAIN] = (503, "")
    with pytest.raises(InputError, match=r"cannot be reached \(it answers 503\): run 'patchknn"):
        create_backbone("test_resnet", pretrained=True)
    assert len(hub.asked) == 1


def test_after_a_fetch_the_cache_serves_where_the_network_is_cut(hub, resnet, tmp_path, look_at):
    hub.hold(_PLAIN, resnet)
    fetch_weights("test_resnet", tmp_path)
    look_at("http://127.0.0.1:9")
    backbone = create_backbone("test_resnet", pretrained=True)
    assert torch.equal(backbone.module.state_dict()["bn1.weight"], resnet["bn1.weight"])
    assert not constants.HF_HUB_OFFLINE


def test_after_a_fetch_the_cache_serves_without_asking_where_offline_is_set(
    hub, resnet, tmp_path, monkeypatch
):
    hub.hold(_PLAIN, resnet)
    fetch_weights("test_resnet", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    backbone = create_backbone("test_resnet", pretrained=True)
    assert torch.equal(backbone.module.state_dict()["bn1.weight"], resnet["bn1.weight"])
    assert hub.asked == []


def test_an_address_of_its_own_that_is_cut_off_is_named(look_at, nobody):
    look_at("http://127.0.0.1:9")
    with (
        pytest.raises(
            InputError, match=rf"as {nobody} cannot be reached \(Connection refused\): do"
        ),
        asking("gcvit_tiny", f"http://{nobody}/gcvit.pth", "do it elsewhere"),
    ):
        raise AssertionError


def test_libraries_say_nothing_meanwhile_and_may_speak_afterwards(look_at, caplog):
    look_at("http://127.0.0.1:9")
    loud = logging.getLogger("huggingface_hub.file_download")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with asking("x", "", ""):
            loud.warning("retrying")
            logging.getLogger("timm.models").warning("unexpected keys")
            warnings.warn("deprecated", stacklevel=1)
    loud.warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_offline_the_cache_serves_and_nobody_is_asked(hub, resnet, tmp_path):
    hub.hold(_PLAIN, resnet)
    with offline(), pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        create_backbone("test_resnet", pretrained=True)
    assert hub.asked == []
    fetch_weights("test_resnet", tmp_path)
    asked = len(hub.asked)
    with offline():
        backbone = create_backbone("test_resnet", pretrained=True)
    assert len(hub.asked) == asked > 0
    name = next(name for name in resnet if name.endswith("weight"))
    torch.testing.assert_close(backbone.module.state_dict()[name], resnet[name])
    create_backbone("test_resnet", pretrained=True)
    assert len(hub.asked) > asked


def test_offline_an_address_is_not_asked_either(hub):
    refused = pytest.raises(InputError, match="HF_HUB_OFFLINE is set")
    with offline(), refused, asking("old", f"{hub.address}/old.pth", "go on"):
        pass
    assert hub.asked == []
