"""Ways to train: from an encoder, over several data sets, until it gets no better."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from patchknn.bundle import load_bundle
from patchknn.bundle_files import BACKBONE_FILE, HEADS_FILE
from patchknn.encoder.saving import load_encoder
from patchknn.errors import InputError, PatchknnError, UsageError
from patchknn.training import descent, finishing
from patchknn.training.fit import splits_file, train_encoder


def test_deep_knn_goes_on_from_a_cross_entropy_encoder(pictures, make_settings, tmp_path):
    patches = pictures()
    before = tmp_path / "classifier"
    train_encoder(patches, make_settings(loss="cross-entropy", epochs=1), before, str)
    settings = make_settings(
        backbone=None, from_encoder=before, loss="deep-knn", epochs=0, freeze_batch_norm="yes"
    )
    untouched = train_encoder(patches, settings, tmp_path / "same", str)
    assert (tmp_path / "same" / BACKBONE_FILE).read_bytes() == (before / BACKBONE_FILE).read_bytes()
    assert untouched.training["from_encoder"] == "classifier"
    trained = train_encoder(patches, replace(settings, epochs=1), tmp_path / "deep", str)
    if trained.training["best_epoch"] == 1:
        tuned = (tmp_path / "deep" / BACKBONE_FILE).read_bytes()
        assert tuned != (before / BACKBONE_FILE).read_bytes()
    assert load_bundle(tmp_path / "deep").description.backbone == "test_resnet"


@pytest.mark.parametrize("loss", ["deep-knn", "triplet"])
def test_a_classification_beside_a_metric_loss_learns_codes_and_classifier(
    pictures, make_settings, tmp_path, loss
):
    patches = pictures(per_class=20)
    fitted = train_encoder(patches, make_settings(loss=loss), tmp_path / "alone", str)
    learnt = train_encoder(patches, make_settings(loss=loss, w_ce=1.0), tmp_path / "joint", str)
    assert fitted.training["classifier"] != learnt.training["classifier"] == "trained"
    assert load_bundle(tmp_path / "alone").description.hash_method == "itq"
    assert load_bundle(tmp_path / "joint").description.hash_method == "learned"
    with (tmp_path / "joint" / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["cross_entropy"]) < float(rows[0]["cross_entropy"])


def test_another_encoder_to_start_from_is_another_run(pictures, make_settings, tmp_path):
    patches = pictures()
    for name, seed in (("a", 0), ("b", 1)):
        settings = make_settings(loss="cross-entropy", epochs=1, seed=seed)
        train_encoder(patches, settings, tmp_path / name, str)
    settings = make_settings(backbone=None, loss="deep-knn", epochs=0)
    output = tmp_path / "deep"
    train_encoder(patches, replace(settings, from_encoder=tmp_path / "a"), output, str)
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    again = train_encoder(patches, replace(settings, from_encoder=tmp_path / "a"), output, str)
    assert not again.skipped


def test_two_data_sets_share_an_encoder_and_have_a_classifier_each(
    pictures, make_settings, tmp_path
):
    everything = pictures(per_class=20)
    kind = [replace(patch, patient=f"P{i % 5}") for i, patch in enumerate(everything)]
    grainy = [
        replace(patch, label="grain" if patch.label == "grain" else "smooth", source=f"b/{i}")
        for i, patch in enumerate(everything)
    ]
    settings = make_settings(task_weights={"grainy": 0.5}, epochs=2)
    lines = []
    result = train_encoder(
        {"kind": kind, "grainy": grainy}, settings, tmp_path / "encoder", lines.append
    )
    bundle = load_bundle(tmp_path / "encoder")
    assert bundle.description.tasks == (
        {"name": "kind", "classes": ["blobs", "grain", "stripes"]},
        {"name": "grainy", "classes": ["grain", "smooth"]},
    )
    assert bundle.description.class_names == ("blobs", "grain", "stripes")
    network = load_encoder(bundle)
    with torch.inference_mode():
        features, _, logits = network(torch.zeros(2, 3, 32, 32))
    assert [each.shape for each in logits] == [(2, 3), (2, 2)]
    scores = np.exp(logits[0].double().numpy())
    answers = bundle.probabilities(features.numpy())
    np.testing.assert_allclose(answers, scores / scores.sum(axis=1, keepdims=True), rtol=1e-4)
    with (tmp_path / "encoder" / "training.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert {"triplet:kind", "triplet:grainy", "p_at_10:kind", "p_at_10:grainy"} <= set(row)
    mean = (float(row["p_at_10:kind"]) + float(row["p_at_10:grainy"])) / 2
    assert float(row["p_at_10"]) == pytest.approx(mean)
    assert result.training["class_counts"]["grainy"].keys() == {"grain", "smooth"}
    assert splits_file(tmp_path / "encoder", "kind").is_file()
    assert splits_file(tmp_path / "encoder", "grainy").is_file()


@pytest.mark.parametrize("loss", ["cross-entropy", "deep-knn", "triplet"])
def test_every_loss_takes_several_data_sets(pictures, make_settings, tmp_path, loss):
    one = pictures(per_class=6, name="one")
    two = [replace(patch, source=f"two/{patch.source}") for patch in pictures(6, name="two")]
    settings = make_settings(loss=loss, epochs=1, bank=2 if loss == "deep-knn" else None)
    train_encoder({"one": one, "two": two}, settings, tmp_path / "encoder", str)
    bundle = load_bundle(tmp_path / "encoder")
    assert [task["name"] for task in bundle.description.tasks] == ["one", "two"]
    assert len(load_encoder(bundle).classifiers) == 2


def test_validation_images_belong_to_one_task(pictures, make_settings, tmp_path):
    patches = pictures(per_class=2)
    with pytest.raises(UsageError, match="--split"):
        train_encoder(
            {"a": patches, "b": patches}, make_settings(), tmp_path / "e", str, validation=patches
        )


def test_a_task_of_one_class_is_refused(pictures, make_settings, tmp_path):
    patches = pictures(per_class=3)
    same = [replace(patch, label="tissue") for patch in patches]
    with pytest.raises(InputError, match="'tissue'"):
        train_encoder({"a": patches, "b": same}, make_settings(), tmp_path / "e", str)


def test_patience_ends_a_run_that_gets_no_better(pictures, make_settings, tmp_path):
    settings = make_settings(lr=0.0, backbone_lr=0.0, weight_decay=0.0, epochs=9, patience=2)
    lines = []
    train_encoder(pictures(per_class=12, patients=6), settings, tmp_path / "encoder", lines.append)
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert any("no better P@10 since epoch 1" in line for line in lines)


def test_batches_put_together_step_once(pictures, make_settings, tmp_path, monkeypatch):
    patches = pictures(per_class=24)
    steps = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a, **k: (steps.append(1), step(*a, **k)))
    counts = {}
    for accumulate in (1, 2, 3, 100):
        steps.clear()
        settings = make_settings(epochs=1, accumulate=accumulate, optimizer="sgd", lr=1e-3)
        train_encoder(patches, settings, tmp_path / f"{accumulate}", str)
        counts[accumulate] = len(steps)
    batches = counts[1]
    assert batches > 2
    assert counts == {1: batches, 2: -(-batches // 2), 3: -(-batches // 3), 100: 1}
    # A group that is cut short by the end of an epoch weighs as much as any other.
    settings = make_settings(epochs=1, accumulate=batches, optimizer="sgd", lr=1e-3)
    train_encoder(patches, settings, tmp_path / "all", str)
    for name in (BACKBONE_FILE, HEADS_FILE):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "100" / name).read_bytes()


def test_a_small_task_has_its_share_of_the_rows_that_fit_its_probe(
    pictures, make_settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(finishing, "_MAX_FIT_ROWS", 12)
    seen = []
    fit = finishing.fit_probe
    monkeypatch.setattr(
        finishing, "fit_probe", lambda *a: (seen.append(np.bincount(a[3]).sum()), fit(*a))
    )
    large = pictures(per_class=30, name="large")
    small = pictures(per_class=2, name="small")
    settings = make_settings(loss="none", size=32)
    train_encoder({"large": large, "small": small}, settings, tmp_path / "e", str)
    assert seen == [6, 6]


def test_gradients_beyond_float16_at_every_scale_end_the_run(
    pictures, make_settings, tmp_path, monkeypatch
):
    # There is no float16 on a CPU: what a loss scale says after many overflows in a row.
    start = descent.Descent.__init__

    def scaled(self, *arguments, **options):
        start(self, *arguments, **options)
        self._scaled = True

    monkeypatch.setattr(descent.Descent, "__init__", scaled)
    monkeypatch.setattr(descent.Descent, "scaler_state", {"scale": 0.5})
    with pytest.raises(PatchknnError, match=r"float16 at every scale in epoch 1, .*bfloat16"):
        train_encoder(pictures(), make_settings(), tmp_path / "e", str)


def test_tensorboard_events_hold_the_epochs(pictures, make_settings, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = make_settings(epochs=2, tensorboard=tmp_path / "events")
    train_encoder(pictures(), settings, tmp_path / "encoder", str)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
