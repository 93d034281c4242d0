"""Where no network is at all, everything runs but what must be downloaded, which says so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

_CUT = ["unshare", "-rn"]
# One process for them all: most of its time goes into importing torch and timm.
_PROGRAM = """
import json, sys
from patchknn.cli.main import run
for line in json.loads(sys.argv[1]):
    print(*line, file=sys.stderr)
    code = run(line)
    if code:
        sys.exit(code)
"""


def _may_cut() -> bool:
    if shutil.which(_CUT[0]) is None:
        return False
    return subprocess.run([*_CUT, "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not _may_cut(), reason="unshare -rn is not permitted here")


@pytest.fixture
def cut_off(tmp_path):
    """Run command lines of patchknn without any network, and with a cache that is cold."""
    variables = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_ETAG_TIMEOUT"):
        variables.pop(name, None)

    def run(*lines):
        words = json.dumps([[str(word) for word in line] for line in lines])
        command = [*_CUT, sys.executable, "-c", _PROGRAM, words]
        return subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)

    return run


_SMALL = ("--size", 32, "--bits", 8, "--workers", 0, "--backbone", "test_resnet")


def test_the_whole_way_without_a_network(cut_off, tmp_path):
    weights = tmp_path / "test_resnet.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    done = cut_off(
        ("simulate", "slides", "made", "--slides", 2, "--patients", 2, "--size-px", 256),
        ("tile", "made/slides.csv", "-o", "tiles", "--size", 32, "--mpp", 1.0, "--workers", 0),
        ("train", "tiles", "-o", "plain", "--loss", "none", *_SMALL),
        ("train", "tiles", "-o", "encoder", "--weights", weights, "--epochs", 1, *_SMALL),
        ("embed", "tiles", "--encoder", "encoder", "--archive", "archive", "--workers", 0),
        ("query", "archive", "tiles", "--exclude-same", "none"),
        ("evaluate", "archive", "tiles", "--exclude-same", "none"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    *_, answer, report = done.stdout.splitlines()
    assert len(json.loads(answer)["neighbours"]) == 10
    assert json.loads(report)["n"] > 0


def test_what_must_be_downloaded_says_what_to_run_on_a_login_node(cut_off, tmp_path):
    for label in "ab":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / label / f"{index}.png")
    failed = cut_off(("train", "pictures", "-o", "encoder", "--pretrained", *_SMALL))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert re.fullmatch(
        r"patchknn: The pretrained weights of test_resnet cannot be had, as huggingface\.co cannot "
        r"be reached \([^()]+\): run 'patchknn weights fetch test_resnet DIR' on a node with "
        r"internet, such as a login node, and give --weights DIR/test_resnet\.safetensors here\.",
        failed.stderr.splitlines()[-1],
    )
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "encoder").exists()
