"""What the hub refuses becomes one sentence that says what to do."""

from __future__ import annotations

import pytest

from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.fetching import fetch_weights
from patchknn.errors import InputError

_GATED = (
    "lab/uni is gated: ask for access at {hub}/lab/uni, set HF_TOKEN to a token of that account "
    "({hub}/settings/tokens), and run this again."
)
_HIDDEN = (
    "{hub}/lab/uni is not there, or not for your eyes: check the name, and for a private model "
    "set HF_TOKEN to a valid token ({hub}/settings/tokens)."
)


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, "GatedRepo", _GATED),
        (403, "GatedRepo", _GATED),
        (401, "RepoNotFound", _HIDDEN),
        (404, "RepoNotFound", _HIDDEN),
        (401, "", _HIDDEN),
        (403, "", _HIDDEN),
        (418, "", "{hub}/lab/uni answers 418: try again later."),
    ],
)
def test_a_refusal_says_where_to_ask_and_which_token(hub, tmp_path, status, code, sentence):
    hub.refusals["lab/uni"] = (status, code)
    with pytest.raises(InputError) as caught:
        fetch_weights("hf-hub:lab/uni", tmp_path)
    assert str(caught.value) == sentence.format(hub=hub.address)


def test_weights_that_are_gated_while_their_description_is_not(hub, vit, tmp_path):
    hub.hold("timm/test_vit.r160_in1k", vit)
    hub.refusals["timm/test_vit.r160_in1k"] = (403, "GatedRepo")
    with pytest.raises(InputError, match=r"^timm/test_vit\.r160_in1k is gated: ask for access at"):
        create_backbone("test_vit", pretrained=True)


def test_a_model_that_timm_cannot_read_is_said_to_be_one(hub, vit, tmp_path):
    hub.hold("lab/bert", vit)
    with pytest.raises(InputError) as caught:
        fetch_weights("hf-hub:lab/bert", tmp_path)
    assert str(caught.value) == (
        f"{hub.address}/lab/bert does not hold the files of a timm model; it says itself how to "
        "load it."
    )
    hub.hold("lab/bert", vit, model_type="bert")
    with pytest.raises(InputError, match=r"is no model of timm: its config\.json names no archit"):
        fetch_weights("hf-hub:lab/bert", tmp_path)
    hub.hold("lab/next", vit, architecture="vit_of_next_year")
    with pytest.raises(InputError, match=r"is a vit_of_next_year, which timm .* update timm\."):
        fetch_weights("hf-hub:lab/next", tmp_path)


def test_a_revision_that_is_not_there_is_named(hub, vit, tmp_path):
    hub.hold("lab/uni", vit, architecture="test_vit")
    with pytest.raises(InputError) as caught:
        fetch_weights("hf-hub:lab/uni@v9", tmp_path)
    assert str(caught.value) == f"{hub.address}/lab/uni has no revision v9."
