"""``slide train`` and ``slide predict`` from the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from patchknn.simulate.cohorts import CohortSettings
from patchknn.wholeslide.grids.grid import GridInfo, write_grid
from patchknn.wholeslide.grids.simulated import write_cohort

_QUICK = ("--epochs", "2", "--folds", "2", "--hidden", "4", "--bootstrap", "20", "--device", "cpu")


@pytest.fixture
def table(tmp_path):
    settings = CohortSettings(slides=16, rare=0.4, dim=5, side=8)
    return write_cohort(tmp_path / "grids", settings)


@pytest.fixture
def model(patchknn, table, tmp_path):
    folder = tmp_path / "model"
    result = patchknn(
        "slide", "train", table.parent, table, "-o", folder, *_QUICK, "--model", "mil"
    )
    assert result.code == 0, result.err
    return folder


def _lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_train_says_how_good_and_how_sure(patchknn, table, tmp_path):
    for model in ("cnn", "mil", "mean", "max"):
        arguments = ("slide", "train", table.parent, table, "-o", tmp_path / model, *_QUICK)
        result = patchknn(*arguments, "--model", model, "--format", "ndjson")
        assert result.code == 0, result.err
        (row,) = _lines(result)
        assert row["slides"] == row["judged_slides"] == 16
        low, high = row["intervals"]["auc"]
        assert low <= row["auc"] <= high
        assert "classification: 16 slides of" in result.err
        assert "fold 2: " in result.err
        assert len(list(csv.DictReader((tmp_path / model / "predictions.csv").open()))) == 16
    again = patchknn(*arguments, "--model", "max", "--format", "ndjson")
    assert _lines(again)[0]["skipped"]


def test_other_questions(patchknn, table, tmp_path):
    asked = ("slide", "train", table.parent, table, *_QUICK, "--format", "ndjson", "-o")
    (row,) = _lines(patchknn(*asked, tmp_path / "r", "--target", "burden"))
    assert -1 <= row["spearman"] <= 1
    survival = ("--time", "time", "--event", "event")
    (row,) = _lines(patchknn(*asked, tmp_path / "s", *survival, "--model", "mean"))
    assert 0 <= row["concordance"] <= 1
    result = patchknn(*asked, tmp_path / "x", "--time", "time")
    assert (result.code, "both --time and --event" in result.err) == (2, True)
    result = patchknn(*asked, tmp_path / "x", "--label", "grade")
    assert (result.code, "no column 'grade'" in result.err) == (1, True)


def test_a_folder_of_slides_that_is_not_there_is_said(patchknn, table, tmp_path):
    gone = tmp_path / "gone"
    line = ("slide", "predict", table.parent, "--model", tmp_path / "m", "--slides", gone)
    result = patchknn(*line)
    assert result.code == 2
    assert f"Invalid value for '--slides': dir '{gone}' does not exist." in result.err


def test_what_cannot_be_is_said_before_anything_is_trained(patchknn, table, tmp_path):
    line = ("slide", "train", table.parent, table, "-o", tmp_path / "m")
    few = patchknn(*line, "--folds", 99, "--dry-run")
    assert (few.code, few.out) == (1, "")
    assert "patients are too few for 99 folds" in few.err
    assert patchknn(*line, "--folds", 2, "--dry-run").code == 0
    weights = patchknn(*line, "--target", "burden", "--class-weights", "balanced")
    assert weights.code == 2
    assert "--class-weights balanced is about classes" in weights.err
    assert not (tmp_path / "m").exists()


def test_stopping_by_slides_without_an_event_is_not_stopping(patchknn, table, tmp_path):
    lines = [line.split(",") for line in table.read_text().splitlines()]
    events = {name: place for place, name in enumerate(lines[0])}
    train = set(sorted({line[events["patient"]] for line in lines[1:]})[::2])
    rows = [[*lines[0], "split"]]
    for line in lines[1:]:
        trains = line[events["patient"]] in train
        line[events["event"]] = "1" if trains else "0"
        rows.append([*line, "train" if trains else "val"])
    assert {row[-1] for row in rows[1:]} == {"train", "val"}
    other = tmp_path / "split.csv"
    other.write_text("\n".join(",".join(row) for row in rows))
    asked = ("--time", "time", "--event", "event", "--own-split", "--epochs", 6, "--patience", 1)
    line = ("slide", "train", table.parent, other, "-o", tmp_path / "m", *asked)
    result = patchknn(*line, "--hidden", 4, "--device", "cpu", "--model", "mean")
    assert result.code == 0, result.err
    assert "epoch 6 of 6 kept" in result.err
    assert "to stop by" not in result.err


def test_a_row_without_a_grid_is_reported_and_the_rest_done(patchknn, table, tmp_path):
    table.write_text(table.read_text() + "ghost.svs,P99,positive,0,1,1\n")
    asked = (
        "slide",
        "train",
        table.parent,
        table,
        *_QUICK,
        "--model",
        "mean",
        "-o",
        tmp_path / "m",
    )
    dry = patchknn(*asked, "--dry-run")
    assert dry.code == 3
    assert not (tmp_path / "m").exists()
    result = patchknn(*asked, "--format", "ndjson")
    assert result.code == 3
    assert "ghost.svs has no grid" in result.err
    assert _lines(result)[0]["input"] == "ghost.svs"


def test_predict_writes_answers_pictures_and_squares(patchknn, table, model, tmp_path):
    (table.parent / "broken.h5").write_bytes(b"")
    result = patchknn(
        "slide", "predict", table.parent, "--model", model, "--heatmap", tmp_path / "maps",
        "--geojson", tmp_path / "json", "--top", 2, "--format", "ndjson",
    )  # fmt: skip
    assert result.code == 3
    rows = {row["slide"]: row for row in _lines(result)}
    assert len(rows) == 17
    assert rows["slide003.tiff"]["prediction"] in {"negative", "positive"}
    assert len(rows["slide003.tiff"]["patches"]) == 2
    assert sum("error" in row for row in rows.values()) == 1
    assert len(list((tmp_path / "maps").glob("*.png"))) == 16
    assert len(list((tmp_path / "json").glob("*.geojson"))) == 16
    assert "16 done, 1 failed" in result.err


def test_predict_explains_by_an_archive_of_the_same_encoder(patchknn, archive, helpers, tmp_path):
    fingerprint = json.loads((archive / "archive.json").read_text())["encoder_fingerprint"]
    lines = ["slide,label"]
    for number in range(6):
        features = np.random.default_rng(number).normal(size=(1, helpers.DIM, 3, 3))
        info = GridInfo(f"n{number}", 224, 224, 0.5, 0.5, 224.0, (672, 672), fingerprint)
        write_grid(tmp_path / "own" / f"n{number}.h5", info, features, np.ones((3, 3), bool))
        lines.append(f"n{number},{'ab'[number % 2]}")
    own = tmp_path / "own.csv"
    own.write_text("\n".join(lines))
    folder = tmp_path / "own_model"
    assert patchknn("slide", "train", tmp_path / "own", own, "-o", folder, *_QUICK).code == 0
    result = patchknn(
        "slide", "predict", tmp_path / "own" / "n0.h5", "--model", folder,
        "--archive", archive, "--k", 3, "--top", 9, "--format", "ndjson",
    )  # fmt: skip
    assert result.code == 0, result.err
    (row,) = _lines(result)
    # Codes by chance may have no row within a quarter of their bits.
    counts = [len(answer["neighbours"]) for answer in row["neighbours"]]
    assert 1 <= max(counts) <= 3
    assert len(row["neighbours"]) == len(row["patches"])
    assert 1 <= len(row["slides"]) <= 3
    assert all(slide["slide"].endswith(".svs") for slide in row["slides"])


def test_an_archive_of_another_encoder_explains_nothing(patchknn, archive, table, model):
    result = patchknn("slide", "predict", table.parent, "--model", model, "--archive", archive)
    assert result.code == 1
    assert "is of another encoder" in result.err


def test_a_table_is_for_people(patchknn, table, model):
    result = patchknn("slide", "predict", table.parent, "--model", model, "--format", "table")
    assert result.code == 0
    assert "slide003.tiff" in result.out
    assert "attention" in result.out
