"""The whole script on miniature data."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

_SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "reports" / "reports.sh"
_CLASSES = ("epithelial", "fibroblast", "inflammatory")


@pytest.mark.skipif(shutil.which("jq") is None, reason="the script needs jq")
@pytest.mark.timeout(900)
def test_an_archive_is_judged_and_has_its_page(tmp_path):
    bin_folder, data = tmp_path / "bin", tmp_path / "data"
    bin_folder.mkdir()
    (bin_folder / "patchknn").write_text(
        f'#!/bin/sh\nPYTHONSAFEPATH=1 exec {sys.executable} -m patchknn "$@"\n'
    )
    (bin_folder / "patchknn").chmod(0o755)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "test_resnet.safetensors")
    for side, count in (("train", 36), ("val", 18)):
        rows = [["path", "label", "patient"]]
        for number in range(count):
            path = data / "colon_cells" / side / "images" / f"{side}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = np.array([40 + 80 * (number % 3), 120, 220 - 80 * (number % 3)])
            noisy = colour + np.random.default_rng(number).normal(0, 40, (27, 27, 3))
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)
            rows.append([f"images/{path.name}", _CLASSES[number % 3], f"{side}{number // 3}"])
        with (data / "colon_cells" / side / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    finished = subprocess.run(
        [_SCRIPT, tmp_path / "out"],
        env={
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PATCHKNN_DATA": str(data),
            "PYTHON": sys.executable,
            "DATASETS": "colon_cells",
            "EPOCHS": "1",
            "SIZE": "32",
            "BACKBONE_OPTIONS": "--backbone test_resnet",
            "WEIGHTS_FILE": str(tmp_path / "test_resnet.safetensors"),
        },
        capture_output=True,
        text=True,
    )
    run = tmp_path / "out" / "colon_cells"
    assert finished.returncode == 0, finished.stderr + (run / "log").read_text()
    for method in ("patchknn", "coarse-l2", "mean-colour", "colour-histogram", "frozen"):
        assert method in finished.stdout
    made = {path.name for path in run.iterdir()}
    assert {"map.png", "answers.ndjson", "suspects.tsv", "calibrate.txt", "own.ndjson"} <= made
    page = (run / "report" / "index.html").read_text()
    assert "Map of the archive" in page
    assert (run / "tables" / "sweeps.csv").is_file()
