"""``patchknn weights fetch``: its row, its sentences, and what an interruption leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.bundle import load_backbone, load_bundle

_HELPERS = Path(__file__).parents[1] / "encoder" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("hub_helpers", _HELPERS)
_helpers = importlib.util.module_from_spec(_SPEC)
sys.modules["hub_helpers"] = _helpers  # where its dataclass looks for itself
_SPEC.loader.exec_module(_helpers)
hub, hub_server, look_at, resnet = (
    getattr(_helpers, name) for name in ("hub", "hub_server", "look_at", "resnet")
)

_PLAIN = "timm/test_resnet.r160_in1k"


@pytest.fixture
def pictures(tmp_path):
    """Three images of one colour in each of two classes."""
    for label, value in (("dark", 40), ("light", 200)):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for index in range(3):
            Image.fromarray(np.full((32, 32, 3), value + index, np.uint8)).save(
                folder / f"{index}.png"
            )
    return tmp_path / "pictures"


def test_one_row_of_data_and_the_line_that_uses_the_file(patchknn, hub, resnet, tmp_path):
    hub.hold(_PLAIN, resnet)
    folder = tmp_path / "my weights"
    file = folder / "test_resnet.safetensors"
    result = patchknn("weights", "fetch", "test_resnet", folder)
    assert result.code == 0, result.err
    row = json.loads(result.out)
    assert list(row) == ["name", "path", "bytes", "sha256", "license", "origin"]
    assert (row["name"], row["path"], row["bytes"]) == (
        "test_resnet",
        str(file),
        file.stat().st_size,
    )
    assert (row["license"], row["origin"]) == ("apache-2.0", f"{hub.address}/{_PLAIN}")
    line = f"patchknn train DATA -o ENCODER --backbone test_resnet --weights '{file}'"
    assert result.err == f"weights: {file} is fetched; on compute nodes: {line}\n"
    again = patchknn("weights", "fetch", "test_resnet", folder, "--format", "tsv")
    assert again.code == 0
    assert again.out.splitlines()[1].split("\t")[3] == row["sha256"]
    kept = "was there and is kept (--force fetches it again)"
    assert again.err == f"weights: {file} {kept}; on compute nodes: {line}\n"


def test_that_line_trains_with_the_weights_of_the_hub(patchknn, hub, resnet, tmp_path, pictures):
    known = {"num_classes": 1000, "classifier": "fc", "input_size": [3, 160, 160]}
    hub.hold("lab/small", resnet, architecture="test_resnet", pretrained_cfg=known)
    told = patchknn("weights", "fetch", "hf-hub:lab/small", tmp_path / "w")
    assert told.code == 0, told.err
    line = shlex.split(told.err.partition("compute nodes: patchknn ")[2])
    encoder = tmp_path / "encoder"
    line = [{"DATA": pictures, "ENCODER": encoder}.get(word, word) for word in line]
    hub.asked.clear()
    small = ("--loss", "none", "--size", 32, "--bits", 8, "--workers", 0)
    result = patchknn(*line, *small)
    assert result.code == 0, result.err
    assert hub.asked == []
    tensors = load_backbone(load_bundle(encoder))
    assert np.array_equal(tensors["conv1.0.weight"], resnet["conv1.0.weight"].numpy())


def test_model_arguments_are_in_that_line(patchknn, hub, resnet, tmp_path):
    hub.hold(_PLAIN, resnet)
    options = ("--model-arg", "drop_rate=0.5", "--model-arg", "act_layer=torch.nn.SiLU")
    result = patchknn("weights", "fetch", "test_resnet", tmp_path, *options)
    assert result.code == 0, result.err
    assert result.err.endswith(f".safetensors {' '.join(options)}\n")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnt18", (2, "timm has no backbone 'resnt18'; the nearest are resnet18")),
        ("nic_cnn", (2, "There are no pretrained weights of nic_cnn")),
        ("hf-hub:lab/none", (1, "/lab/none is not there, or not for your eyes")),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(patchknn, hub, tmp_path, name, told):
    result = patchknn("weights", "fetch", name, tmp_path / "w")
    assert (result.code, result.out) == (told[0], "")
    assert result.err.startswith("patchknn: ")
    assert told[1] in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_an_interrupted_download_leaves_nothing_and_the_next_one_is_whole(
    hub_server, resnet, tmp_path
):
    hub_server.hold(_PLAIN, resnet)
    hub_server.stall = True
    variables = {
        **os.environ,
        "HF_ENDPOINT": hub_server.address,
        "HF_HOME": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    variables.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "patchknn", "weights", "fetch", "test_resnet", tmp_path / "w"]
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert hub_server.half_sent.wait(timeout=120)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (75, "")
    sentence = "stopped by SIGTERM; what was finished is kept, run the same command to go on."
    assert err == f"patchknn: {sentence}\n"
    assert not (tmp_path / "w").exists()
    hub_server.stall = False
    whole = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["test_resnet.safetensors"]
    assert len(whole.stderr.splitlines()) == 1
