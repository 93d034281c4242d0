"""The whole comparison on miniature data."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file


def _picture(path: Path, number: int, kinds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.array([40 + 160 * (number % kinds) / kinds, 120, 200])
    noisy = colour + np.random.default_rng(number).normal(0, 30, (27, 27, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)


def _miniature(data: Path) -> None:
    for side, kinds in (("train", 4), ("val", 4), ("extra", 2)):
        folder = data / "colon_cells" / side
        rows = [("path", "label", "patient")]
        for number in range(16):
            _picture(folder / f"{number}.png", number, kinds)
            rows.append((f"{number}.png", f"c{number % kinds}", f"{side}{number // 4}"))
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    rows = [("path", "split", "label", "source_tile_group")]
    for number in range(16):
        _picture(data / "lc25000_colon" / "train" / f"{number}.jpeg", number, 2)
        rows.append((f"{number}.jpeg", "train", f"l{number % 2}", str(number // 4)))
    with (data / "lc25000_colon" / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for number in range(16):
        _picture(data / "kather2016_100" / f"k{number % 8}" / f"{number}.png", number, 8)


@pytest.mark.timeout(900)
def test_each_task_is_left_out_and_nothing_done_twice(scripts, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    _miniature(data)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    command = [
        sys.executable,
        scripts / "left_out.py",
        out,
        "--data",
        data,
        "--seeds",
        "0",
        "--images",
        "32",
    ]
    command += ["--left-out", "types"]
    command += ["--most", "24", "--size", "32", "--weights", tmp_path / "w.safetensors"]
    variables = {
        **os.environ,
        "BACKBONE_OPTIONS": "--backbone test_resnet",
        "PATCHKNN": f"{sys.executable} -P -m patchknn",
    }
    variables.pop("PYTHONSAFEPATH", None)  # a script finds its neighbours
    finished = subprocess.run(command, env=variables, capture_output=True, text=True)
    log = (out / "log").read_text() if (out / "log").exists() else ""
    assert finished.returncode == 0, finished.stderr + log
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["task"], row["images"]) for row in rows} == {("types", "24")}
    singles = ["imagenet", "extra", "lc25000", "kather2016"]
    assert [row["encoder"] for row in rows] == [*singles, "extra+lc25000+kather2016"]
    assert finished.stdout == (out / "table.md").read_text()
    again = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (again.stdout, again.stderr) == (finished.stdout, "")
