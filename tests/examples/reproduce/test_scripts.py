"""Whole scripts on miniature data."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

_FOLDER = Path(__file__).resolve().parents[3] / "examples" / "reproduce"
_CLASSES = ("epithelial", "fibroblast", "inflammatory")


@pytest.mark.parametrize("script", sorted(_FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_bash_can_parse(script):
    finished = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


_STARTS = """
set -euo pipefail
. "$1/common.sh"
JOBS=2
good() { touch "$1"; }
bad() {
  false
  touch "$1"
}
for number in 1 2 3; do
  start good "$2/good$number"
  start bad "$2/bad$number"
done
all_done
ended
"""


def test_every_run_that_fails_is_counted_and_stops_no_other(tmp_path):
    finished = subprocess.run(
        ["bash", "-c", _STARTS, "starts", _FOLDER, tmp_path], capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert "  3 of the runs failed" in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good1", "good2", "good3"]


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the scripts need jq")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A PATH with this installation's patchknn, and weights of a small network."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "patchknn").write_text(
        f'#!/bin/sh\nPYTHONSAFEPATH=1 exec {sys.executable} -m patchknn "$@"\n'
    )
    (folder / "patchknn").chmod(0o755)
    weights = folder / "weights" / "test_resnet.safetensors"
    weights.parent.mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "WEIGHTS": str(weights.parent),
        "BACKBONE": "test_resnet",
        "SEEDS": "0",
    }


def _run(environment, *words, code=0):
    finished = subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True
    )
    assert finished.returncode == code, finished.stderr
    return finished


@needs_jq
@pytest.mark.timeout(1200)
def test_local_makes_its_table_and_goes_on_where_it_was(
    environment, tmp_path, save, write_table, read_table
):
    for side, patients in (("train", 4), ("val", 2)):
        rows = [["path", "label", "patient"]]
        for number in range(24 if side == "train" else 12):
            name = f"images/{side}{number}.png"
            save(tmp_path / "data" / "colon_cells" / side / name, number, 27)
            rows.append([name, _CLASSES[number % 3], f"{side}{number // 3 % patients}"])
        write_table(tmp_path / "data" / "colon_cells" / side / "manifest.csv", rows)
    settings = environment | {
        "PATCHKNN_DATA": str(tmp_path / "data"),
        "DATASETS": "colon_cells",
        # And the row whose encoder it takes over; two-tasks needs data that are not there.
        "METHODS": "two-tasks cross-entropy-8",
        "EPOCHS": "1",
        "EXTRAS": "0",
        "SIZE": "32",
        "BACKBONE_OPTIONS": "--backbone test_resnet",
        "WEIGHTS_FILE": f"{environment['WEIGHTS']}/test_resnet.safetensors",
        "TRAIN_OPTIONS": "--head-epochs 1 --workers 0",
        "JOBS": "2",
    }
    out = tmp_path / "out"
    finished = _run(settings, _FOLDER / "local.sh", out, code=1)
    assert "extra/manifest.csv does not exist" in finished.stderr
    assert "1 of the runs failed" in finished.stderr  # and the others are done
    run = out / "runs" / "colon_cells" / "cross-entropy" / "seed0"
    figures = json.loads((run / "radius1.ndjson").read_text())
    assert figures["n"] == 12
    assert figures["settings"]["rows"] == 24
    row, averaged = read_table(out / "table.csv")
    assert float(row["Acc"]) == figures["accuracy"]
    assert float(row["AURC by distance"]) == figures["weighted_aurc"]
    assert averaged["method"] == "cross-entropy-8"
    other = run.parents[1] / "cross-entropy-8" / "seed0"
    assert (other / "encoder").resolve() == (run / "encoder").resolve()
    stored = json.loads((other / "archive" / "archive.json").read_text())
    assert stored["orientations"] == 8
    assert (
        float(row["P@10, r = 2"])
        == json.loads((run / "radius2.ndjson").read_text())["precision_at_k"]
    )
    assert f"| {100 * figures['accuracy']:.1f} |" in finished.stdout
    assert (out / "claims.md").read_text() in finished.stdout
    described = json.loads((run / "encoder" / "encoder.json").read_text())
    assert described["training"]["validation_images"] == 0
    assert described["training"]["best_epoch"] == 1
    # Of what is missing all is made again, and nothing else.
    (run / "radius2.ndjson").unlink()
    told = {"log", ".jobs"}  # that it was looked at again
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.*") if path.name not in told}
    again = _run(settings, _FOLDER / "local.sh", out, code=1)
    assert again.stdout == finished.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (run / "radius2.ndjson").is_file()


@needs_jq
@pytest.mark.timeout(600)
def test_a_script_says_which_data_are_missing(environment, tmp_path):
    for script in ("crc.sh", "skin7.sh", "pneumonia.sh", "sd198.sh", "sweeps.sh"):
        finished = _run(environment, _FOLDER / script, tmp_path / "none", tmp_path / "out", code=1)
        assert f"{tmp_path}/none/" in finished.stderr
        assert "does not exist" in finished.stderr
    unknown = environment | {"METHODS": "cross-entropy nonsense"}
    assert "nonsense is unknown" in _run(unknown, _FOLDER / "local.sh", code=2).stderr


@needs_jq
@pytest.mark.timeout(1200)
def test_crc_splits_the_tissue_and_asks_the_other_cohort(environment, tmp_path, save, read_table):
    for folder, each in (("NCT-CRC-HE-100K", 10), ("CRC-VAL-HE-7K", 3)):
        for number, label in enumerate(("ADI", "BACK", "TUM")):
            for image in range(each):
                name = f"{label}-{folder[:3]}{image}.tif"
                save(tmp_path / folder / label / name, number + 3 * image)
    settings = environment | {
        "METHODS": "multitask",
        "TRAIN_OPTIONS": "--size 32 --epochs 1 --head-epochs 1 --workers 0",
    }
    out = tmp_path / "out"
    _run(settings, _FOLDER / "crc.sh", tmp_path, out)
    run = out / "runs" / "crc" / "multitask" / "seed0"
    splits = [row["split"] for row in read_table(run / "encoder.splits.csv")]
    counts = {name: splits.count(name) for name in splits}
    assert sum(counts.values()) == 30
    assert counts["train"] > counts["val"] + counts["test"]
    test, other = (
        json.loads((run / f"{name}.ndjson").read_text()) for name in ("crc-test", "crc-val")
    )
    assert (test["n"], test["settings"]["rows"]) == (counts["test"], counts["train"])
    assert (other["n"], other["settings"]["rows"]) == (9, 30)
    for name in ("figure-2.png", "figure-3.png"):
        assert Image.open(out / name).size[0] > 300
    rows = {row["method"]: row for row in read_table(out / "table.csv")}
    assert float(rows["multitask, crc-val"]["classifier Acc"]) == other["classifier_accuracy"]


@pytest.mark.timeout(600)
def test_a_peer_s_backbone_keeps_its_batch_norm_statistics(
    environment, tmp_path, save, write_table, read_table
):
    rows = [["path", "label"]]
    for number in range(24):
        save(tmp_path / f"{number}.png", number)
        rows.append([f"{number}.png", _CLASSES[number % 3]])
    write_table(tmp_path / "train.csv", rows)
    pytest.importorskip("pytorch_metric_learning")
    start = Path(environment["WEIGHTS"]) / "test_resnet.safetensors"
    words = (
        *(
            sys.executable,
            _FOLDER / "peer.py",
            "images",
            tmp_path / "train.csv",
            "--weights",
            start,
        ),
        *("--backbone", "test_resnet", "--size", 32, "--epochs", 1, "--batch-size", 12),
        *("--output", tmp_path / "peer.safetensors"),
    )
    _run(environment, *words)
    before, after = load_file(start), load_file(tmp_path / "peer.safetensors")
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert changed
    assert not [name for name in changed if "running" in name or "num_batches" in name]
    (row,) = read_table(tmp_path / "peer.csv")
    assert math.isfinite(float(row["loss"]))
    assert "already trained" in _run(environment, *words).stdout
