"""Slide training end to end on small cohorts."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from patchknn.errors import (
    ConflictError,
    DamageError,
    InputError,
    PatchknnError,
    StoppedError,
    UsageError,
)
from patchknn.tables import read_table
from patchknn.wholeslide.learning import network_run
from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.learning.fit import train_slide_model
from patchknn.wholeslide.learning.scoring import outputs_of
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.learning.slide_model import load_slide_model
from patchknn.wholeslide.models.making import MODELS
from patchknn.wholeslide.models.tissue import Standardised
from patchknn.wholeslide.tasks.reading import Question

_QUICK = SlideSettings(epochs=3, folds=2, hidden=8, bootstrap=50, device="cpu")


def _silent(_):
    pass


def _split(table, folder, names):
    """The cohort with a patient for each slide, in splits that come round."""
    lines = ["slide,patient,label,split"]
    for number, row in enumerate(read_table(table).rows):
        split = names[number % len(names)]
        lines.append(f"{row['slide']},Q{number},{row['label']},{split}")
    other = folder / "split.csv"
    other.write_text("\n".join(lines))
    return read_cohort(table.parent, other, Question())


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


def _log(folder):
    """The rows of the log, without the columns that say how fast it went."""
    rows = list(csv.DictReader((folder / "training.csv").open()))
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"precision": "bfloat16"}], ids=str)
def test_a_stopped_run_goes_on_bit_for_bit(make_cohort, tmp_path, monkeypatch, steps, changes):
    table = make_cohort(slides=40)
    cohort = read_cohort(table.parent, table, Question())
    settings = dataclasses.replace(_QUICK, model="cnn", batch_size=6, **changes)  # three batches
    whole = train_slide_model(cohort, settings, tmp_path / "whole", _silent)
    taken = 0
    learn = network_run.NetworkRun._learn

    def some(self, batch):
        nonlocal taken
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, batch)

    monkeypatch.setattr(network_run.NetworkRun, "_learn", some)
    with pytest.raises(StoppedError, match="SIGTERM"):
        train_slide_model(cohort, settings, tmp_path / "model", _silent)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "model.partial" / "1" / "training.csv").exists() == (steps > 3)
    lines = []
    result = train_slide_model(cohort, settings, tmp_path / "model", lines.append)
    (told,) = [line for line in lines if "going on from" in line]
    epoch, step = divmod(steps - 1, 3)
    if "accumulate" in changes:  # between two steps only: after the second batch and the third
        step = max(step, 1)
    assert told.endswith(f"epoch {epoch + 1}, {step + 1} of 3 batches done")
    assert result.fingerprint == whole.fingerprint
    assert not (tmp_path / "model.partial").exists()
    assert _log(tmp_path / "model") == _log(tmp_path / "whole")
    predictions = [(tmp_path / name / "predictions.csv").read_text() for name in ("model", "whole")]
    assert predictions[0] == predictions[1]


def test_a_fold_that_is_done_is_not_trained_again(cohort, tmp_path, monkeypatch):
    whole = train_slide_model(cohort, _QUICK, tmp_path / "whole", _silent)
    learn, folds = network_run.NetworkRun._learn, []

    def in_second(self, batch):
        folds.append(self._fold.name)
        if self._fold.name == "fold 2":
            os.kill(os.getpid(), signal.SIGUSR1)
        return learn(self, batch)

    monkeypatch.setattr(network_run.NetworkRun, "_learn", in_second)
    with pytest.raises(StoppedError, match="SIGUSR1"):
        train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    monkeypatch.undo()
    folds.clear()
    monkeypatch.setattr(
        network_run.NetworkRun,
        "_learn",
        lambda self, batch: (folds.append(self._fold.name), learn(self, batch))[1],
    )
    lines = []
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", lines.append)
    assert set(folds) == {"fold 2", "all slides"}
    assert sum("going on from" in line for line in lines) == 1
    assert sum(line.startswith("fold 1:") for line in lines) == 1  # what it gave is told again
    assert result.fingerprint == whole.fingerprint


def test_the_log_is_that_of_all_trainings(cohort, tmp_path):
    train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    rows = list(csv.DictReader((tmp_path / "model" / "training.csv").open()))
    assert [(row["fold"], row["epoch"]) for row in rows[:6]] == [
        (fold, epoch) for fold in ("fold 1", "fold 2") for epoch in "123"
    ]
    assert {row["fold"] for row in rows[6:]} == {"all slides"}
    assert list(rows[0])[:4] == ["fold", "epoch", "loss", "train_seconds"]
    for row in rows:
        assert float(row["loss"]) > 0
        assert float(row["slides_per_second"]) > 0
    assert all(float(row["stop_loss"]) > 0 for row in rows[:6])


def test_batches_of_one_step_are_as_one_batch(make_cohort, tmp_path):
    table = make_cohort(slides=32)
    cohort = _split(table, tmp_path, ("train", "train", "train", "val"))
    # Rates that stand still: they are those of a step's last batch.
    settings = dataclasses.replace(_QUICK, model="mean", turn=False, warmup=0.0, schedule="step")
    weights = []
    for size, together in ((8, 1), (4, 2)):
        changed = dataclasses.replace(settings, batch_size=size, accumulate=together)
        train_slide_model(cohort, changed, tmp_path / str(size), _silent, split=True)
        network = load_slide_model(tmp_path / str(size)).network
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["cnn", "mil"])
def test_bfloat16_learns_as_well_and_is_another_run(make_cohort, tmp_path, model):
    table = make_cohort(slides=40, rare=0.6, distance=12.0, tissues=2, dim=16, side=8)
    cohort = read_cohort(table.parent, table, Question())
    settings = dataclasses.replace(
        _QUICK, model=model, epochs=50, lr=0.01, batch_size=5, hidden=16, precision="bfloat16"
    )
    result = train_slide_model(cohort, settings, tmp_path / "model", _silent)
    assert result.training["precision"] == "bfloat16"
    assert result.figures["auc"].value > 0.8
    weights = load_slide_model(tmp_path / "model").network.state_dict().values()
    assert {value.dtype for value in weights} == {torch.float32}
    other = dataclasses.replace(settings, precision="float32", epochs=1, folds=0)
    assert not train_slide_model(cohort, other, tmp_path / "model", _silent).skipped


def test_in_bfloat16_features_are_not_rounded_before_they_are_standardised(
    make_cohort, tmp_path, monkeypatch
):
    seen = set()
    standardise = Standardised.forward

    def noted(self, vectors):
        seen.add(vectors.dtype)
        return standardise(self, vectors)

    monkeypatch.setattr(Standardised, "forward", noted)
    table = make_cohort(slides=12)
    cohort = read_cohort(table.parent, table, Question())
    settings = dataclasses.replace(_QUICK, model="mil", folds=0, precision="bfloat16")
    train_slide_model(cohort, settings, tmp_path / "model", _silent)
    assert seen == {torch.float32}


def test_as_many_steps_are_taken_where_batches_are_put_together():
    for accumulate, epochs in ((1, 60), (3, 180)):
        settings = SlideSettings(accumulate=accumulate).resolved(200, "classification")
        assert settings.last_epoch == epochs


def test_precisions_that_cannot_be_are_said(cohort, tmp_path):
    for name, told in (("float64", "is none of float32"), ("float16", "needs a GPU")):
        settings = dataclasses.replace(_QUICK, precision=name)
        with pytest.raises(UsageError, match=told):
            train_slide_model(cohort, settings, tmp_path / "model", _silent)


def test_tensorboard_events_hold_each_training(cohort, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = dataclasses.replace(_QUICK, tensorboard=tmp_path / "events")
    train_slide_model(cohort, settings, tmp_path / "model", _silent)
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == [
        "all-slides",
        "fold-1",
        "fold-2",
    ]
    events = EventAccumulator(str(tmp_path / "events" / "fold-2"))
    events.Reload()
    assert [event.step for event in events.Scalars("stop_loss")] == [1, 2, 3]


def test_a_split_of_the_table_is_used(make_cohort, tmp_path):
    cohort = _split(make_cohort(), tmp_path, ("train", "train", "val", "test"))
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
    with pytest.raises(
        PatchknnError, match=r"epoch 1, step 1 of \d of fold 1: train .* lower --lr\.$"
    ):
        train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)


def test_zarr_grids_serve_as_well(make_cohort, tmp_path):
    table = make_cohort(suffix=".zarr", slides=12)
    cohort = read_cohort(table.parent, table, Question())
    result = train_slide_model(cohort, _QUICK, tmp_path / "model", _silent)
    assert result.training["slides"] == 12


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(InputError, match="is not a slide model"):
        load_slide_model(tmp_path)
