"""``query --overlay`` and ``--geojson`` on real slides, and the way back into ``tile``."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder

Run = Callable[..., Any]
COLOURS = {"STR": (230, 110, 170), "TUM": (110, 50, 140)}
MPP = 0.25  # the archive has 0.5, so that a tile of 32 px is 64 px of level 0


def texture(shape: tuple[int, int], colour: tuple[int, int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (*shape, 3))
    return np.clip(noise + colour, 0, 255).astype(np.uint8)


def write_slide(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    per_cm = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", **per_cm)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``archive`` of two slides, each of one class, and ``slides/s.tif``: glass, one, the other."""
    from patchknn.cli.main import run

    root = tmp_path_factory.mktemp("on-slides")
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet", input_size=32)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, 16, (2,))
    facts: dict[str, Any] = {"training": {}, "metrics": {}, "hash_method": "learned"}
    tasks = {"label": tuple(COLOURS)}
    save_encoder(root / "encoder", network, backbone, input_size=32, bits=16, tasks=tasks, **facts)
    for number, (label, colour) in enumerate(COLOURS.items()):
        write_slide(root / "stored" / f"{label}.tif", texture((512, 256), colour, number))
    table = [f"stored/{label}.tif,{label}" for label in COLOURS]
    (root / "stored.csv").write_text("\n".join(["path,label", *table]))
    tiles = [root / "tiles", "--size", 32, "--workers", 0]
    assert run([*map(str, ["tile", root / "stored.csv", "-o", *tiles])]) == 0
    command = ["embed", root / "tiles", "--encoder", root / "encoder", "--workers", 0]
    assert run([*map(str, command), "--archive", str(root / "archive")]) == 0
    glass = np.full((512, 128, 3), 245, np.uint8)
    halves = [texture((512, 256), colour, 7 + n) for n, colour in enumerate(COLOURS.values())]
    write_slide(root / "slides" / "s.tif", np.concatenate([glass, *halves], axis=1))
    return root


def test_predictions_come_back_as_the_labels_of_tiles(
    patchknn: Run, world: Path, tmp_path: Path
) -> None:
    folders = ("--overlay", tmp_path / "over", "--geojson", tmp_path / "geo")
    slide = world / "slides" / "s.tif"
    asked = patchknn("query", world / "archive", slide, *folders, "--workers", 0)
    assert asked.code == 0, asked.err
    answers = {line["query"]: line for line in map(json.loads, asked.out.splitlines())}
    assert {answer["prediction"] for answer in answers.values()} == set(COLOURS)
    features = json.loads((tmp_path / "geo" / "s.tif.geojson").read_text())["features"]
    assert len(features) == len(answers)
    for feature in features:
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert (np.ptp(ring, axis=0) == 64).all()
        answer = answers[f"{slide}@{ring[0][0]}_{ring[0][1]}"]
        assert feature["properties"]["classification"]["name"] == answer["prediction"]
        assert feature["properties"]["measurements"]["Confidence"] == answer["confidence"]

    command = ("tile", slide, "-o", tmp_path / "tiles", "--size", 32, "--annotations")
    tiled = patchknn(*command, tmp_path / "geo", "--workers", 0)
    assert tiled.code == 0, tiled.err
    from patchknn.slides.tileset import read_tileset

    tiles = read_tileset(tmp_path / "tiles" / "s.h5")
    assert len(tiles) == len(answers)
    assert tiles.labels == tuple(
        answers[f"{slide}@{x}_{y}"]["prediction"] for x, y in tiles.coords.tolist()
    )
    again = patchknn(
        *("query", world / "archive", tmp_path / "tiles" / "s.h5", "--workers", 0),
        *("--geojson", tmp_path / "again"),
    )
    assert again.code == 0, again.err
    of_tiles = json.loads((tmp_path / "again" / "s.tif.geojson").read_text())["features"]
    assert of_tiles == features
    with Image.open(tmp_path / "over" / "s.tif.png") as image:
        assert image.size[0] > 640 / (64 / 24)


def test_images_are_left_out_with_one_warning(patchknn: Run, world: Path, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(texture((32, 32), COLOURS["STR"], number)).save(tmp_path / f"{number}.png")
    result = patchknn(
        *("query", world / "archive", *sorted(tmp_path.glob("*.png")), "--workers", 0),
        *("--geojson", tmp_path / "geo"),
    )
    assert result.code == 0, result.err
    warnings = [line for line in result.err.splitlines() if line.startswith("warning")]
    (warning,) = [line for line in warnings if "no tile of a slide" in line]
    assert f"no tile of a slide: 3; they are not in {tmp_path / 'geo'}." in warning
    assert list((tmp_path / "geo").iterdir()) == []


def test_answers_that_are_skipped_would_be_missing(
    patchknn: Run, world: Path, tmp_path: Path
) -> None:
    slide = world / "slides" / "s.tif"
    result = patchknn("query", world / "archive", slide, "-o", tmp_path / "a", "--overlay", "o")
    assert result.code == 2
    assert "all tiles of a slide" in result.err


def test_a_folder_that_cannot_be_made_is_told_of_first(
    patchknn: Run, world: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    slide = world / "slides" / "s.tif"
    result = patchknn("query", world / "archive", slide, "--overlay", tmp_path / "file" / "below")
    assert result.code == 1
    assert result.out == ""
    assert str(tmp_path / "file") in result.err


def test_what_is_calibrated_is_calibrated_everywhere(
    patchknn: Run, world: Path, tmp_path: Path
) -> None:
    """In the squares for QuPath, and in what the page calls least sure."""
    archive = shutil.copytree(world / "archive", tmp_path / "archive")
    made = patchknn("archive", "calibrate", archive, "--exclude-same", "self")
    assert made.code == 0, made.err
    slide = world / "slides" / "s.tif"
    wanted = ("--calibrated", "--abstain-below", 0.8, "--workers", 0, "--format", "ndjson")
    folders = ("--geojson", tmp_path / "geo", "--report", tmp_path / "report")
    asked = patchknn("query", archive, slide, *wanted, *folders)
    assert asked.code == 0, asked.err
    answers = {line["query"]: line for line in map(json.loads, asked.out.splitlines())}
    features = json.loads((tmp_path / "geo" / "s.tif.geojson").read_text())["features"]
    for feature in features:
        x, y = feature["geometry"]["coordinates"][0][0]
        answer, told = answers[f"{slide}@{x}_{y}"], feature["properties"]["measurements"]
        assert told["Calibrated confidence"] == answer["calibrated_confidence"]
        assert told["Out of distribution"] == int(answer["out_of_distribution"])
    page = (tmp_path / "report" / "index.html").read_text()
    assert "80 % calibrated confidence" in page
    assert "it is calibrated, how probable the prediction is to be right" in page
    shown = [float(text) for text in re.findall(r'data-c="([-0-9.e]+)"', page)]
    expected = sorted(one["calibrated_confidence"] for one in answers.values())
    assert len(shown) == min(len(expected), 200)
    assert shown == pytest.approx(expected[: len(shown)], abs=1e-4)
    plain = patchknn("query", archive, slide, "--workers", 0, "--geojson", tmp_path / "plain")
    assert plain.code == 0
    bare = json.loads((tmp_path / "plain" / "s.tif.geojson").read_text())["features"]
    assert "Calibrated confidence" not in bare[0]["properties"]["measurements"]
