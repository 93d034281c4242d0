"""Slide training end to end on small cohorts."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from patchknn.errors import ConflictError, DamageError, InputError, PatchknnError, StoppedError
from patchknn.tables import read_table
from patchknn.wholeslide.learning import network_run
from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.learning.fit import train_slide_model
from patchknn.wholeslide.learning.scoring import outputs_of
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.learning.slide_model import load_slide_model
from patchknn.wholeslide.models.making import MODELS
from patchknn.wholeslide.tasks.reading import Question

_QUICK = SlideSettings(epochs=3, folds=2, hidden=8, bootstrap=50, device="cpu")


def _silent(_):
    pass


@pytest.fixture
def cohort(make_cohort):
    table = make_cohort()
    return read_cohort(table.parent, table, Question())


@pytest.mark.parametrize("model", MODELS)
def test_what_is_easy_is_learnt(make_cohort, tmp_path, model):
    table = make_cohort(slides=40, rare=0.6, distance=12.0, tissues=2, dim=16, side=8)
    cohort = read_cohort(table.parent, table, Question())
    settings = dataclasses.replace(_QUICK, model=model, epochs=30, lr=0.01, patience=0)
    if model == "cnn":  # which has more to find
        settings = dataclasses.replace(settings, epochs=50, batch_size=5, hidden=16)
    result = train_slide_model(cohort, settings, tmp_path / "model", _silent)
    assert result.figures["auc"].value > 0.8
    assert result.figures["auc"].low <= result.figures["auc"].value <= result.figures["auc"].high


def test_predictions_are_those_of_models_that_saw_no_slide_of_the_patient(cohort, tmp_path):
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    rows = list(csv.DictReader((tmp_path / "model" / "predictions.csv").open()))
    assert {row["slide"] for row in rows} == {case.name for case in cohort.cases}
    of_patient = {}
    for row in rows:
        assert of_patient.setdefault(row["patient"], row["fold"]) == row["fold"]
    grids = {case.name: case.grid for case in cohort.cases}
    for row in rows[::5]:
        model = load_slide_model(tmp_path / "model" / "folds" / row["fold"])
        score = model.task.scores(outputs_of(model.network, [grids[row["slide"]]], 2))[0]
        assert score[1] == pytest.approx(float(row["probability:positive"]))
    areas, pairs = 0.0, 0
    for fold in ("1", "2"):
        mine = [row for row in rows if row["fold"] == fold]
        true = [row["label"] == "positive" for row in mine]
        weight = sum(true) * (len(true) - sum(true))
        areas += weight * roc_auc_score(true, [float(r["probability:positive"]) for r in mine])
        pairs += weight
    assert result.figures["auc"].value == pytest.approx(areas / pairs)


def test_the_model_is_read_again_as_it_was(cohort, tmp_path):
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    model = load_slide_model(tmp_path / "model")
    assert model.fingerprint == result.fingerprint
    assert model.task.classes == ("negative", "positive")
    assert model.encoder == "simulated"
    assert model.metrics["auc"]["value"] == result.figures["auc"].value
    grid = cohort.cases[0].grid
    model.check_grid(cohort.cases[0].path, grid)
    foreign = dataclasses.replace(grid, info=dataclasses.replace(grid.info, stride_px=112))
    with pytest.raises(ConflictError, match="the stride is 112"):
        model.check_grid(cohort.cases[0].path, foreign)
    weights = tmp_path / "model" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamageError):
        load_slide_model(tmp_path / "model")


def test_the_same_run_is_done_once(cohort, tmp_path):
    first = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    again = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    assert again.skipped
    assert again.figures == first.figures
    other = dataclasses.replace(_QUICK, seed=1)
    assert not train_slide_model(cohort, other, tmp_path / "model", _silent).skipped
    (tmp_path / "something").mkdir()
    with pytest.raises(ConflictError, match="is not a slide model"):
        train_slide_model(cohort, _QUICK, tmp_path / "something", _silent)


@pytest.mark.parametrize("steps", [2, 8])
def test_a_stopped_run_goes_on_bit_for_bit(cohort, tmp_path, monkeypatch, steps):
    whole = train_slide_model(cohort, _QUICK, tmp_path / "whole", _silent)
    taken = 0
    descend = network_run.NetworkRun._descend

    def some(self, *arguments):
        nonlocal taken
        taken += 1
        if taken == steps:
            raise StoppedError
        descend(self, *arguments)

    monkeypatch.setattr(network_run.NetworkRun, "_descend", some)
    with pytest.raises(StoppedError):
        train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    assert not (tmp_path / "model").exists()
    log = tmp_path / "model.partial" / "1" / "training.csv"
    assert log.exists()  # an epoch was done
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    assert result.fingerprint == whole.fingerprint
    assert not (tmp_path / "model.partial").exists()
    for name in ("predictions.csv", "training.csv"):
        assert (tmp_path / "model" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_split_of_the_table_is_used(make_cohort, tmp_path):
    table = make_cohort()
    read = read_table(table)
    lines = ["slide,patient,label,split"]
    for number, row in enumerate(read.rows):
        split = ("train", "train", "val", "test")[number % 4]
        lines.append(f"{row['slide']},Q{number},{row['label']},{split}")
    other = tmp_path / "split.csv"
    other.write_text("\n".join(lines))
    cohort = read_cohort(table.parent, other, Question())
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent, split=True)
    rows = list(csv.DictReader((tmp_path / "model" / "predictions.csv").open()))
    assert [row["split"] for row in rows] == ["test"] * 6
    assert result.training["judged_slides"] == 6
    assert not (tmp_path / "model" / "folds").exists()


def test_without_folds_nothing_is_judged(cohort, tmp_path):
    settings = dataclasses.replace(_QUICK, folds=0)
    result = train_slide_model(cohort, settings, tmp_path / "model", _silent)
    assert result.figures == {}
    assert not (tmp_path / "model" / "predictions.csv").exists()


def test_regression_and_survival(make_cohort, tmp_path):
    table = make_cohort(slides=60, rare=0.5, distance=10.0, tissues=2)
    settings = dataclasses.replace(_QUICK, model="mean", epochs=40, lr=0.02, batch_size=20)
    for question, figure, least in (
        (Question(target="burden"), "spearman", 0.6),
        (Question(time="time", event="event"), "concordance", 0.6),
    ):
        cohort = read_cohort(table.parent, table, question)
        result = train_slide_model(cohort, settings, tmp_path / figure, _silent)
        assert result.figures[figure].value > least
        rows = list(csv.DictReader((tmp_path / figure / "predictions.csv").open()))
        assert len(rows) == 60
        assert np.isfinite([float(row["prediction"]) for row in rows]).all()


def test_a_loss_that_is_no_number_is_said(cohort, tmp_path, monkeypatch):
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(type(cohort.task), "loss", lambda *_: nan * 1)
    with pytest.raises(PatchknnError, match="lower --lr"):
        train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)


def test_zarr_grids_serve_as_well(make_cohort, tmp_path):
    table = make_cohort(suffix=".zarr", slides=12)
    cohort = read_cohort(table.parent, table, Question())
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    assert result.training["slides"] == 12


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(InputError, match="is not a slide model"):
        load_slide_model(tmp_path)
