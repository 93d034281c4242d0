"""Paper C from images to slides: an encoder of two tasks compresses slides, which are learnt from,
explained by an archive, and put beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SIZE = 32
_HERE = ("--device", "cpu")


def _images(folder: Path, classes: str) -> Path:
    for number in range(16):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def _slide(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    pixels = np.full((256, 256, 3), 245, np.uint8)
    grain = rng.integers(-30, 30, (256, 160, 3))
    pixels[:, :160] = np.clip(np.array([200 - 60 * (seed % 2), 90, 160]) + grain, 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", **resolution)
    return path


@pytest.fixture
def done(patchknn):
    """Run a line that must end well; its lines of NDJSON."""

    def call(*line):
        result = patchknn(*line)
        assert result.code == 0, result.err
        return [json.loads(text) for text in result.out.splitlines()]

    return call


def test_an_encoder_of_two_tasks_serves_slides(done, tmp_path):
    encoder, grids, slides = tmp_path / "encoder", tmp_path / "grids", tmp_path / "slides"
    tasks = [f"cells={_images(tmp_path / 'a', 'XYZ')}", f"organs={_images(tmp_path / 'b', 'PQ')}"]
    network = ("--backbone", "test_resnet", "--size", SIZE, "--bits", 8, "--mpp", 0.5)
    steps = ("--epochs", 1, "--per-class", 2, "--split", "none", "--workers", 0)
    given = [word for task in tasks for word in ("--task", task)]
    done("train", *given, "-o", encoder, *network, *steps, *_HERE)

    for number in range(6):
        _slide(slides / f"s{number}.tif", number)
    rows = done("slide", "compress", slides, "-e", encoder, "-o", grids, "--workers", 0, *_HERE)
    assert [row["status"] for row in rows[:6]] == ["done"] * 6

    table = tmp_path / "slides.csv"
    lines = [f"s{n}.tif,P{n},{'dark' if n % 2 else 'light'}\n" for n in range(6)]
    table.write_text("".join(["slide,patient,label\n", *lines]))
    learnt = ("--model", "mean", "--epochs", 8, "--folds", 2, "--bootstrap", 0)
    (judged,) = done("slide", "train", grids, table, "-o", tmp_path / "model", *learnt, *_HERE)
    assert judged["judged_slides"] == 6
    assert 0 <= judged["auc"] <= 1

    archive = tmp_path / "archive"
    done("tile", slides, "-o", tmp_path / "tiles", "--size", SIZE, "--mpp", 0.5, "--workers", 0)
    where = ("-e", encoder, "-a", archive, "--workers", 0)
    done("embed", tmp_path / "tiles", *where, *_HERE)
    explained = ("--model", tmp_path / "model", "--archive", archive)
    told = done("slide", "predict", grids, *explained, *_HERE)
    assert {one["prediction"] for one in told} <= {"dark", "light"}
    assert all(one["patches"] for one in told)
    assert all(len(one["slides"]) > 0 for one in told)

    found = done("slide", "search", archive, "--labels", table, "--exclude-same", "slide", "--k", 3)
    assert [one["query"] for one in found] == [f"s{n}.tif" for n in range(6)]
    assert all(one["majority"]["1"]["prediction"] == one["label"] for one in found)
