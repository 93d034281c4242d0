"""Whole runs of a small network: every loss, resuming, and what goes wrong."""

from __future__ import annotations

import csv
import gc
import os
import shutil
import signal
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchknn.bundle import load_bundle
from patchknn.bundle_files import BACKBONE_FILE, HEADS_FILE
from patchknn.encoder.saving import load_encoder
from patchknn.errors import ConflictError, InputError, PatchknnError, StoppedError
from patchknn.training import descent, fine_tuning, fit, judging
from patchknn.training.checkpoint import CHECKPOINT_FILE, partial_folder, read_checkpoint
from patchknn.training.fit import splits_file, train_encoder
from patchknn.training.judging import Judge
from patchknn.training.ranks import Ranks


def _stop_after(steps):
    """A progress bar that gets a SIGTERM after so many training steps."""
    left = steps

    def progress(items, *, total=None, label=""):
        nonlocal left
        for item in items:
            yield item
            if label.startswith("epoch"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGTERM)

    return progress


def _tensors(output):
    return [(output / name).read_bytes() for name in (HEADS_FILE, BACKBONE_FILE)]


@pytest.mark.parametrize("loss", ["multitask", "deep-knn", "cross-entropy", "triplet"])
def test_every_loss_gives_a_bundle_that_knows_its_classes(pictures, make_settings, tmp_path, loss):
    output = tmp_path / "encoder"
    lines = []
    result = train_encoder(
        pictures(per_class=12, patients=6), make_settings(loss=loss), output, lines.append
    )
    bundle = load_bundle(output)
    assert bundle.fingerprint == result.fingerprint
    assert bundle.description.class_names == ("blobs", "grain", "stripes")
    learnt = loss in {"multitask", "cross-entropy"}
    assert bundle.description.hash_method == ("learned" if learnt else "itq")
    assert bundle.description.training["classifier"] == (
        "trained" if learnt else "linear probe on hash vectors"
    )
    assert bundle.probabilities(np.zeros((1, 96))).shape == (1, 3)
    assert bundle.description.normalized == (loss == "deep-knn")
    with (output / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "p_at_10", "bit_entropy", "stuck_bits"} <= set(rows[0])
    assert {"ball_1", "ball_2", "empty_1", "empty_2", "images_per_second"} <= set(rows[0])
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert splits_file(output).is_file()
    assert not partial_folder(output).exists()


def test_training_learns_what_the_mean_colour_does_not_say(pictures, make_settings, tmp_path):
    settings = make_settings(loss="multitask", epochs=12, per_class=8, augment="none")
    result = train_encoder(pictures(per_class=40), settings, tmp_path / "encoder", str)
    assert result.metrics["accuracy"] > 0.8
    assert result.metrics["p_at_10"] > 0.7


def test_the_saved_network_gives_the_features_that_were_judged(pictures, make_settings, tmp_path):
    train_encoder(pictures(), make_settings(), tmp_path / "encoder", str)
    network = load_encoder(load_bundle(tmp_path / "encoder"))
    with torch.inference_mode():
        output = network(torch.zeros(2, 3, 32, 32))
    assert output.features.shape == (2, 96)
    assert [logits.shape for logits in output.logits] == [(2, 3)]


@pytest.mark.parametrize("loss", ["multitask", "triplet"])
def test_the_same_seed_gives_the_same_fingerprint_and_another_does_not(
    pictures, make_settings, tmp_path, loss
):
    patches, settings = pictures(), make_settings(loss=loss, epochs=1)
    first = train_encoder(patches, settings, tmp_path / "a", str)
    with torch.random.fork_rng():
        torch.manual_seed(12345)  # what happened before in the process does not matter
        second = train_encoder(patches, settings, tmp_path / "b", str)
    third = train_encoder(patches, replace(settings, seed=1), tmp_path / "c", str)
    assert first.fingerprint == second.fingerprint != third.fingerprint


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        (1, {}),
        (2, {"optimizer": "sgd", "schedule": "step", "step_epochs": 1}),
        (3, {"ema": 0.9}),
        (2, {"accumulate": 2, "loss": "triplet", "mining": "easy-positive"}),
        (3, {"loss": "deep-knn", "bank": 2}),
        (2, {"loss": "deep-knn", "bank": 2, "w_ce": 1.0}),
        (1, {"class_weights": "balanced", "loss": "cross-entropy"}),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(pictures, make_settings, tmp_path, steps, changes):
    patches = pictures(per_class=12)
    settings = make_settings(epochs=2, per_class=4, **changes)
    train_encoder(patches, settings, tmp_path / "whole", str)
    output = tmp_path / "stopped"
    with pytest.raises(StoppedError, match="SIGTERM"):
        train_encoder(patches, settings, output, str, progress=_stop_after(steps))
    assert not output.exists()
    lines = []
    train_encoder(patches, settings, output, lines.append)
    assert any("going on" in line for line in lines)
    assert _tensors(output) == _tensors(tmp_path / "whole")


def test_a_finished_run_is_not_done_again_and_a_changed_setting_is(
    pictures, make_settings, tmp_path
):
    patches, settings = pictures(), make_settings(epochs=1)
    first = train_encoder(patches, settings, tmp_path / "encoder", str)
    again = train_encoder(patches, settings, tmp_path / "encoder", str)
    assert again.skipped
    assert again.fingerprint == first.fingerprint
    relabelled = [replace(patches[0], label="grain"), *patches[1:]]
    other = train_encoder(relabelled, settings, tmp_path / "encoder", str)
    assert not other.skipped
    assert other.fingerprint != first.fingerprint


def test_a_run_is_known_again_by_the_content_of_its_images_not_by_their_place_or_time(
    pictures, make_settings, tmp_path
):
    patches, settings, output = pictures(), make_settings(), tmp_path / "encoder"
    with pytest.raises(StoppedError):
        train_encoder(patches, settings, output, str, progress=_stop_after(1))
    scratch = tmp_path / "of-the-next-node"
    scratch.mkdir()
    moved = [
        replace(patch, path=Path(shutil.copyfile(patch.path, scratch / f"{number}.png")))
        for number, patch in enumerate(patches)
    ]
    for number, patch in enumerate(moved):
        os.utime(patch.path, (number, number))
    lines = []
    train_encoder(moved, settings, output, lines.append)
    assert any("going on from" in line for line in lines)
    Image.new("RGB", Image.open(moved[0].path).size).save(moved[0].path)
    assert not train_encoder(moved, settings, output, str).skipped
    moved[0].path.unlink()
    assert not train_encoder(moved, settings, output, str).skipped


def test_a_stopped_run_with_other_settings_starts_afresh(pictures, make_settings, tmp_path):
    patches, settings = pictures(), make_settings()
    output = tmp_path / "encoder"
    with pytest.raises(StoppedError):
        train_encoder(patches, settings, output, str, progress=_stop_after(1))
    lines = []
    train_encoder(patches, replace(settings, lr=5e-4), output, lines.append)
    assert any("starting afresh" in line for line in lines)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    pictures, make_settings, tmp_path
):
    output = tmp_path / "encoder"
    patches, settings = pictures(), make_settings(epochs=3)
    poisoned = False

    def progress(items, *, total=None, label=""):
        nonlocal poisoned
        for item in items:
            yield item
            if label == "epoch 2/3" and not poisoned:
                poisoned = True
                for parameter in networks[0].parameters():
                    torch.nn.init.constant_(parameter, float("nan"))

    networks = []
    from patchknn.training import assembly

    class Watched(assembly.EncoderNetwork):
        def __init__(self, *args, **named):
            super().__init__(*args, **named)
            networks.append(self)

    original, assembly.EncoderNetwork = assembly.EncoderNetwork, Watched
    try:
        with pytest.raises(PatchknnError, match=r"epoch 2, step 2 of \d+.*--lr"):
            train_encoder(patches, settings, output, str, progress=progress)
    finally:
        assembly.EncoderNetwork = original
    groups, state = read_checkpoint(partial_folder(output))
    assert (state["epoch"], state["step"]) == (2, 0)
    assert all(tensor.isfinite().all() for tensor in groups["network"].values())
    assert not output.exists()


@pytest.mark.parametrize("loss", ["triplet", "multitask"])
def test_a_network_that_collapsed_stops_the_run_and_keeps_the_last_good_state(
    pictures, make_settings, tmp_path, monkeypatch, loss
):
    output = tmp_path / "encoder"
    as_it_was = fine_tuning.FineTuning.run_epoch

    def collapsing(self, *arguments):
        means = as_it_was(self, *arguments)
        if self.descent.position.epoch == 2:
            for parameter in self._context.network.backbone.parameters():
                torch.nn.init.zeros_(parameter)
        return means

    monkeypatch.setattr(fine_tuning.FineTuning, "run_epoch", collapsing)
    with pytest.raises(
        PatchknnError, match=r"collapsed after epoch 2: the features of all 18 .*--from"
    ):
        train_encoder(pictures(), make_settings(epochs=3, loss=loss), output, str)
    groups, state = read_checkpoint(partial_folder(output))
    assert (state["epoch"], state["step"]) == (2, 0)
    assert any(tensor.any() for tensor in groups["network"].values())
    assert not output.exists()


def test_features_that_are_the_same_but_for_rounding_are_a_collapse(
    pictures, make_settings, tmp_path, monkeypatch
):
    random = np.random.default_rng(0)
    as_they_are = judging.extract_features

    def alike(context, rows, label):
        features, numbers = as_they_are(context, rows, label)
        return (1 + 1e-6 * random.normal(size=features.shape)).astype(np.float32), numbers

    monkeypatch.setattr(judging, "extract_features", alike)
    with pytest.raises(PatchknnError, match="collapsed after epoch 1"):
        train_encoder(pictures(), make_settings(loss="triplet"), tmp_path / "encoder", str)


def test_batch_norm_keeps_its_statistics_when_the_backbone_comes_with_weights(
    pictures, make_settings, tmp_path, weights_file
):
    from safetensors.torch import load_file

    given = load_file(weights_file)
    names = [name for name in given if name.endswith(("running_mean", "running_var"))]
    kept = make_settings(weights=weights_file, epochs=1)
    for freeze, same in (("auto", True), ("no", False)):
        output = tmp_path / freeze
        settings = replace(kept, freeze_batch_norm=freeze, lr=1e-3)
        result = train_encoder(pictures(name=f"for-{freeze}"), settings, output, str)
        trained = load_file(output / BACKBONE_FILE)
        if result.training["best_epoch"] == 1:
            assert all(torch.equal(trained[n], given[n]) for n in names) is same
            assert not torch.equal(trained["conv1.0.weight"], given["conv1.0.weight"])


def test_the_new_layers_come_first_and_leave_the_backbone_alone(
    pictures, make_settings, tmp_path, weights_file
):
    from safetensors.torch import load_file

    settings = make_settings(weights=weights_file, epochs=0, head_epochs=3)
    lines = []
    train_encoder(pictures(), settings, tmp_path / "encoder", lines.append)
    trained, given = load_file(tmp_path / "encoder" / BACKBONE_FILE), load_file(weights_file)
    assert [name for name, value in given.items() if not torch.equal(trained[name], value)] == []
    assert any(line.startswith("new layers: loss") for line in lines)


def test_new_layers_that_give_no_number_end_the_run(
    pictures, make_settings, tmp_path, weights_file
):
    settings = make_settings(weights=weights_file, epochs=0, head_epochs=3, lr=1e30)
    with pytest.raises(PatchknnError, match="new layers is no longer a number in epoch"):
        train_encoder(pictures(), settings, tmp_path / "encoder", str)
    assert not (tmp_path / "encoder").exists()


def test_without_training_codes_are_fitted_and_labels_are_not_needed(
    pictures, make_settings, tmp_path, weights_file
):
    unlabelled = [replace(patch, label=None) for patch in pictures()]
    settings = make_settings(loss="none", weights=weights_file)
    result = train_encoder(unlabelled, settings, tmp_path / "encoder", str)
    bundle = load_bundle(tmp_path / "encoder")
    assert bundle.description.hash_method == "itq"
    assert bundle.classifier is None
    assert result.metrics["bit_entropy"] > 0.5
    labelled = train_encoder(pictures(name="labelled"), settings, tmp_path / "probed", str)
    assert labelled.training["classifier"] == "linear probe on hash vectors"


def test_unreadable_images_are_named_counted_and_skipped(pictures, make_settings, tmp_path):
    patches = pictures()
    patches[0].path.write_bytes(b"\x89PNG\r\n\x1a\n")
    patches[20].path.unlink()
    lines = []
    settings = make_settings(epochs=1, cache_bytes=0, max_bad="2")
    result = train_encoder(patches, settings, tmp_path / "encoder", lines.append)
    assert {problem.name for problem in result.problems} <= {patches[0].id, patches[20].id}
    assert len(result.problems) == 2
    assert sum(patches[0].id in line for line in lines) == 1


@pytest.mark.parametrize("refresh", [2, 3, 4])
def test_a_run_stopped_while_it_renews_the_bank_loses_no_gradient(
    pictures, make_settings, tmp_path, refresh
):
    patches = pictures(per_class=16)
    settings = make_settings(loss="deep-knn", bank=1, accumulate=2, epochs=3)
    left = refresh

    def stop_in_bank(items, *, total=None, label=""):
        nonlocal left
        left -= label == "bank"
        for item in items:
            if label == "bank" and left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item

    train_encoder(patches, settings, tmp_path / "whole", str)
    output = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train_encoder(patches, settings, output, str, progress=stop_in_bank)
    train_encoder(patches, settings, output, str)
    assert _tensors(output) == _tensors(tmp_path / "whole")


def test_a_stopped_run_ends_only_after_its_state_is_written(
    pictures, make_settings, tmp_path, monkeypatch
):
    output, there = tmp_path / "encoder", []
    file = partial_folder(output) / CHECKPOINT_FILE
    monkeypatch.setattr(Ranks, "wait", lambda _: there.append(file.is_file()))
    with pytest.raises(StoppedError):
        train_encoder(pictures(), make_settings(), output, str, progress=_stop_after(1))
    assert there == [True]  # all processes meet there: none ends while the first one writes


def test_a_stop_does_not_save_a_loss_that_is_no_number(
    pictures, make_settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(descent, "_SEEN_AT_ONCE", ())  # as on a GPU
    networks = []
    make = fine_tuning.make_objective
    monkeypatch.setattr(
        fine_tuning, "make_objective", lambda c: (networks.append(c.network), make(c))[1]
    )

    def progress(items, *, total=None, label=""):
        for number, item in enumerate(items):
            yield item
            if label == "epoch 2/3" and number == 0:
                torch.nn.init.constant_(next(networks[0].parameters()), float("nan"))
                os.kill(os.getpid(), signal.SIGTERM)

    settings = make_settings(epochs=3)
    with pytest.raises(PatchknnError, match="no longer a number in epoch 2"):
        train_encoder(pictures(), settings, tmp_path / "encoder", str, progress=progress)
    groups, state = read_checkpoint(partial_folder(tmp_path / "encoder"))
    assert (state["epoch"], state["step"]) == (2, 0)
    assert all(tensor.isfinite().all() for tensor in groups["network"].values())


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_stopped_run_remembers_what_could_not_be_read(
    pictures, make_settings, tmp_path, steps, cache_bytes
):
    patches = pictures(per_class=12)
    for number in (2, 14, 15, 30):
        patches[number].path.write_bytes(b"")
    settings = make_settings(epochs=2, per_class=4, cache_bytes=cache_bytes, max_bad="4")
    whole = train_encoder(patches, settings, tmp_path / "whole", str)
    output = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train_encoder(patches, settings, output, str, progress=_stop_after(steps))
    resumed = train_encoder(patches, settings, output, str)
    assert _tensors(output) == _tensors(tmp_path / "whole")
    assert {problem.name for problem in resumed.problems} == {p.name for p in whole.problems}
    assert resumed.training["unreadable_images"] == 4


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_more_unreadable_images_than_allowed_are_an_error_with_their_number(
    pictures, make_settings, tmp_path, cache_bytes
):
    patches = pictures()
    for number in (0, 9, 20):
        patches[number].path.write_bytes(b"")
    settings = make_settings(epochs=1, cache_bytes=cache_bytes, max_bad="1")
    with pytest.raises(InputError, match=r"\d of 24 images cannot be read.*--max-bad.*\(1\)"):
        train_encoder(patches, settings, tmp_path / "encoder", str)


def test_an_output_that_is_something_else_is_left_alone(pictures, make_settings, tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConflictError, match="precious"):
        train_encoder(pictures(), make_settings(), tmp_path / "precious", str)


def test_weights_of_another_backbone_are_named_by_their_keys(
    pictures, make_settings, tmp_path, weights_file
):
    settings = make_settings(backbone="test_vit", weights=weights_file)
    with pytest.raises(InputError, match="conv1"):
        train_encoder(pictures(), settings, tmp_path / "encoder", str)


@pytest.mark.parametrize("patience", [None, 2])
def test_of_epochs_as_good_as_each_other_the_last_is_kept(
    pictures, make_settings, tmp_path, monkeypatch, patience
):
    judged = Judge.epoch

    def perfect(*arguments):
        figures, warning = judged(*arguments)
        return {**figures, "p_at_10": 1.0}, warning

    monkeypatch.setattr(Judge, "epoch", perfect)
    settings = make_settings(epochs=4, patience=patience)
    result = train_encoder(pictures(), settings, tmp_path / "encoder", str)
    assert result.training["best_epoch"] == (4 if patience is None else 3)


@pytest.mark.parametrize("stopped", [False, True])
def test_what_is_left_of_a_run_can_be_collected(
    pictures, make_settings, tmp_path, monkeypatch, stopped
):
    # Threads of a group that something still refers to may abort the process when it ends.
    held = []
    join = fit.join_ranks

    def noted(*arguments):
        ranks = join(*arguments)
        held.append(weakref.ref(ranks))
        return ranks

    monkeypatch.setattr(fit, "join_ranks", noted)
    settings = make_settings(ema=0.5)
    if stopped:
        with pytest.raises(StoppedError):
            train_encoder(pictures(), settings, tmp_path / "e", str, progress=_stop_after(1))
    else:
        train_encoder(pictures(), settings, tmp_path / "e", str)
    gc.collect()
    (reference,) = held
    assert reference() is None
