"""``patchknn train``: what it prints, how it refuses, what it exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.bundle import load_backbone, load_bundle


@pytest.fixture
def folder(tmp_path):
    """An ImageFolder of two classes that differ by their grain."""

    def write(classes=("coarse", "fine"), per_class=6, name="pictures"):
        rng = np.random.default_rng(0)
        for label in classes:
            target = tmp_path / name / label
            target.mkdir(parents=True)
            for index in range(per_class):
                side = 4 if label == "coarse" else 32
                pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(pixels).resize((32, 32)).save(target / f"{index}.png")
        return tmp_path / name

    return write


_SMALL = ("--backbone", "test_resnet", "--size", 32, "--bits", 8, "--epochs", 1, "--workers", 0)


def test_an_image_folder_becomes_an_encoder_and_one_line_of_data(patchknn, folder, tmp_path):
    output = tmp_path / "encoder"
    result = patchknn("train", folder(), "-o", output, *_SMALL)
    assert result.code == 0, result.err
    answer = json.loads(result.out)
    assert answer["fingerprint"] == load_bundle(output).fingerprint
    assert answer["encoder"] == str(output)
    assert 0 <= answer["p_at_10"] <= 1
    assert "epoch 1/1: loss " in result.err
    assert "coarse 5, fine 5" in result.err or "training images (" in result.err
    again = patchknn("train", tmp_path / "pictures", "-o", output, *_SMALL)
    assert json.loads(again.out)["skipped"] is True


def test_unlabelled_images_beside_labelled_ones_are_counted(patchknn, folder, tmp_path):
    pictures = folder(per_class=3)
    rows = ["path,label"]
    rows += [f"pictures/coarse/{index}.png,{'coarse' * (index > 0)}" for index in range(3)]
    rows += [f"pictures/fine/{index}.png,fine" for index in range(3)]
    manifest = pictures.parent / "some.csv"
    manifest.write_text("\n".join(rows) + "\n")
    result = patchknn("train", manifest, "-o", tmp_path / "e", "--loss", "none", *_SMALL)
    assert result.code == 0, result.err
    assert "6 training images (coarse 2, fine 3, unlabelled 1)" in result.err


def test_a_manifest_with_patients_and_splits(patchknn, folder, tmp_path):
    pictures = folder(per_class=6)
    rows = ["path,label,patient,split"]
    for label in ("coarse", "fine"):
        for index in range(6):
            split = "val" if index > 3 else "train"
            rows.append(f"pictures/{label}/{index}.png,{label},P{index},{split}")
    manifest = tmp_path / "all.csv"
    manifest.write_text("\n".join(rows))
    output = tmp_path / "encoder"
    result = patchknn("train", manifest, "-o", output, *_SMALL, "--format", "tsv")
    assert result.code == 0, result.err
    assert result.out.splitlines()[0].startswith("encoder\tloss\tbackbone")
    training = load_bundle(output).description.training
    assert (training["train_images"], training["validation_images"]) == (8, 4)
    assert pictures.is_dir()


def test_splits_are_written_beside_the_encoder_and_can_be_given_back(patchknn, folder, tmp_path):
    output = tmp_path / "encoder"
    result = patchknn("train", folder(per_class=8), "-o", output, *_SMALL, "--split", "50/25/25")
    assert result.code == 0, result.err
    splits = tmp_path / "encoder.splits.csv"
    assert str(splits) in result.err
    again = patchknn("train", splits, "-o", tmp_path / "other", *_SMALL)
    first, second = (load_bundle(tmp_path / name).description for name in ("encoder", "other"))
    assert again.code == 0
    assert first.training["class_counts"] == second.training["class_counts"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--loss", "deep-kn"), ["deep-kn ", "deep-knn"]),
        (("--backbone", "mobilenetv2_10"), ["mobilenetv2_10", "mobilenetv2_100"]),
        (("--bits", 12), ["--bits 12", "multiples of 8"]),
        (("--bits", 50), ["--bits 50", "multiples of 8"]),
        (("--size", 0), ["'--size'", "greater than or equal to 8. See 'patchknn train --help'"]),
        (("--slide-mpp", 9), ["'--slide-mpp'", "less than or equal to 2"]),
        (("--mean", "grey"), ["--mean grey"]),
        (("--split", "70/30/x"), ["--split 70/30/x"]),
        (("--split", "elsewhere"), ["elsewhere"]),
        (("--model-arg", "pad_type"), ["--model-arg", "NAME=VALUE"]),
        (("--precision", "float16", "--device", "cpu"), ["float16", "GPU"]),
    ],
)
def test_wrong_options_exit_2_with_one_sentence(patchknn, folder, tmp_path, options, words):
    result = patchknn("train", folder(), "-o", tmp_path / "encoder", *_SMALL, *options)
    assert result.code == 2
    assert all(word in result.err for word in words), result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "encoder").exists()


def test_one_class_is_not_enough(patchknn, folder, tmp_path):
    result = patchknn("train", folder(("coarse",)), "-o", tmp_path / "encoder", *_SMALL)
    assert result.code == 1
    assert "'coarse'" in result.err
    assert "two classes" in result.err


def test_no_image_and_no_label_are_said(patchknn, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    empty = patchknn("train", tmp_path / "empty", "-o", tmp_path / "encoder", *_SMALL)
    assert empty.code == 1
    assert "holds no image" in empty.err
    flat = patchknn("train", folder() / "fine", "-o", tmp_path / "encoder", *_SMALL)
    assert flat.code == 1
    assert "has a label" in flat.err
    assert "--loss none" in flat.err


def test_bad_images_among_good_ones_are_reported_and_the_rest_is_done(patchknn, folder, tmp_path):
    pictures = folder()
    (pictures / "fine" / "0.png").write_bytes(b"")
    (pictures / "fine" / "1.png").write_text("hello")
    result = patchknn("train", pictures, "-o", tmp_path / "encoder", *_SMALL)
    assert result.code == 3
    *bad, answer = map(json.loads, result.out.splitlines())
    assert sorted(entry["input"] for entry in bad) == ["fine/0.png", "fine/1.png"]
    assert all(entry["error"] for entry in bad)
    assert answer["fingerprint"]
    assert f"{pictures / 'fine' / '1.png'} is not an image: " in result.err
    assert "2 inputs could not be used" in result.err


def test_a_manifest_without_its_columns_or_with_unknown_files(patchknn, folder, tmp_path):
    manifest = tmp_path / "bad.csv"
    manifest.write_text("file,label\na.png,x\n")
    assert "path" in patchknn("train", manifest, "-o", tmp_path / "encoder", *_SMALL).err
    pictures = folder()
    lines = [f"pictures/{p.parent.name}/{p.name},{p.parent.name}" for p in pictures.rglob("*.png")]
    manifest.write_text("\n".join(["path,label", *lines, "absent.png,fine"]))
    result = patchknn("train", manifest, "-o", tmp_path / "encoder", *_SMALL)
    assert result.code == 3
    assert "absent.png does not exist" in result.err


def test_a_dry_run_says_what_would_be_done_and_does_nothing(patchknn, folder, tmp_path):
    result = patchknn("train", folder(), "-o", tmp_path / "encoder", *_SMALL, "--dry-run")
    assert result.code == 0
    assert "would train on" in result.err
    line = (*_SMALL, "--dry-run", "--loss", "deep-knn", "--w-ce", "0.5")
    joint = patchknn("train", tmp_path / "pictures", "-o", tmp_path / "encoder", *line)
    assert "deep-knn loss + 0.5 × cross-entropy" in joint.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


def test_labelled_tile_sets_are_read_from_their_slides(patchknn, tmp_path):
    import tifffile

    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        pixels = rng.integers(100, 200, (256, 256, 3), np.uint8)
        tifffile.imwrite(
            tmp_path / f"{name}.tif",
            pixels,
            tile=(64, 64),
            photometric="rgb",
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
    slides = tmp_path / "slides.csv"
    slides.write_text("path,label,patient\none.tif,coarse,P1\ntwo.tif,fine,P2\n")
    tiles = tmp_path / "tiles"
    options = ("--size", 32, "--min-tissue", 0, "--workers", 0)
    assert patchknn("tile", slides, "-o", tiles, *options).code == 0
    result = patchknn("train", tiles, "-o", tmp_path / "encoder", *_SMALL, "--split", "none")
    assert result.code == 0, result.err
    training = load_bundle(tmp_path / "encoder").description.training
    assert training["mpp"] == 0.5
    assert training["class_counts"] == {"coarse": 64, "fine": 64}


def test_a_killed_command_goes_on_and_sigterm_exits_75(folder, tmp_path):
    pictures = folder(per_class=40)
    command = [sys.executable, "-m", "patchknn", "train", str(pictures), "-o", str(tmp_path / "e")]
    command += [str(word) for word in (*_SMALL, "--epochs", 3000, "--split", "none")]
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ
        ) as process:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if sum(text.startswith("epoch") for text in lines) == 2:
                    process.send_signal(number)
                    break
            rest = process.stderr.read()
            assert process.wait() == code, "".join(lines) + rest
        if code == 75:
            assert "run the same command to go on" in rest
        else:
            assert any("going on from" in line for line in lines)
    assert (Path(tmp_path) / "e.partial" / "checkpoint.safetensors").is_file()


@pytest.mark.parametrize("loss", ["none", "multitask"])
def test_a_full_disk_leaves_the_encoder_as_it_was(patchknn, folder, tmp_path, little_room, loss):
    line = ("train", folder(), "-o", tmp_path / "encoder", "--loss", loss, *_SMALL)
    assert patchknn(*line).code == 0
    before = load_bundle(tmp_path / "encoder")
    with little_room(100_000):  # the weights are larger
        result = patchknn(*line, "--seed", 1)
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith(f"patchknn: {tmp_path / 'encoder'}")
    assert last.endswith(": File too large.")
    assert load_backbone(load_bundle(tmp_path / "encoder"))
    assert load_bundle(tmp_path / "encoder").fingerprint == before.fingerprint
    assert not list(tmp_path.rglob(".tmp-*"))
    assert patchknn(*line, "--seed", 1).code == 0
    assert load_bundle(tmp_path / "encoder").fingerprint != before.fingerprint


def _options(tmp_path, folder, *arguments):
    """The settings that a ``patchknn train`` line asks for."""
    from patchknn.cli.app import root_command
    from patchknn.cli.train_settings import settings_of

    line = ["train", str(folder), "-o", str(tmp_path / "e"), *map(str, arguments)]
    command = root_command(only="train")
    with command.make_context("patchknn", line) as context:
        train = command.commands["train"]
        with train.make_context("train", line[1:], parent=context) as own:
            return settings_of(own)


def test_a_preset_holds_what_the_paper_prints_and_flags_go_before(folder, tmp_path, monkeypatch):
    pictures = folder()
    printed = _options(tmp_path, pictures, "--preset", "paper-b")
    assert (printed.backbone, printed.loss, printed.optimizer) == ("resnet50", "deep-knn", "sgd")
    assert (printed.lr, printed.step_epochs, printed.step_factor) == (0.01, 20, 0.5)
    assert (printed.positives, printed.negatives) == (5, 5)
    assert (printed.classes_per_batch, printed.per_class) == (9, 10)
    assert (printed.size, printed.read_size, printed.augment) == (224, 256, "flip")
    own = _options(tmp_path, pictures, "--preset", "paper-b", "--lr", 0.1, "--backbone", "resnet18")
    assert (own.lr, own.backbone, own.optimizer) == (0.1, "resnet18", "sgd")
    monkeypatch.setenv("PATCHKNN_TRAIN_STEP_EPOCHS", "30")  # as for SD-198
    assert _options(tmp_path, pictures, "--preset", "paper-b").step_epochs == 30


def test_a_preset_leaves_the_start_to_weights_of_ones_own(folder, tmp_path):
    weights = tmp_path / "w.safetensors"
    chosen = _options(tmp_path, folder(), "--preset", "paper-a", "--weights", weights)
    assert (chosen.backbone, chosen.pretrained, chosen.weights) == ("resnet18", False, weights)


def test_an_encoder_to_start_from_brings_its_size_and_its_bits(patchknn, folder, tmp_path):
    pictures = folder()
    first = patchknn("train", pictures, "-o", tmp_path / "ce", *_SMALL, "--crop", 0.5)
    assert first.code == 0, first.err
    chosen = _options(tmp_path, pictures, "--from", tmp_path / "ce", "--loss", "deep-knn")
    assert (chosen.size, chosen.crop, chosen.bits) == (32, 0.5, 8)
    line = ("train", pictures, "-o", tmp_path / "star", "--from", tmp_path / "ce")
    result = patchknn(*line, "--loss", "deep-knn", "--epochs", 1, "--workers", 0)
    assert result.code == 0, result.err
    assert json.loads(result.out)["backbone"] == "test_resnet"
    description = load_bundle(tmp_path / "star").description
    assert (description.input_size, description.crop) == (32, 0.5)


def test_two_tasks_make_one_encoder_whose_first_task_answers(patchknn, folder, tmp_path):
    one = folder(name="one")
    two = folder(classes=("fine", "coarse", "other"), name="two")
    tasks = ("--task", f"grain={one}", "--task", f"kind={two}", "--task-weight", "kind=0.5")
    result = patchknn("train", *tasks, "-o", tmp_path / "e", *_SMALL)
    assert result.code == 0, result.err
    answer = json.loads(result.out)
    assert {"p_at_10:grain", "p_at_10:kind"} <= answer.keys()
    assert "grain: " in result.err
    description = load_bundle(tmp_path / "e").description
    assert [task["name"] for task in description.tasks] == ["grain", "kind"]
    assert description.class_names == ("coarse", "fine")
    embedded = patchknn("embed", one, "--encoder", tmp_path / "e", "--archive", tmp_path / "a")
    assert embedded.code == 0, embedded.err
    asked = patchknn("query", tmp_path / "a", one / "fine" / "0.png", "--format", "ndjson")
    assert json.loads(asked.out)["classifier"]["prediction"] in {"coarse", "fine"}


def test_features_of_an_archive_train_an_mlp_that_takes_images(patchknn, folder, tmp_path):
    pictures = folder()
    frozen = ("--loss", "none", "--backbone", "test_resnet", "--size", 32, "--bits", 8)
    for line in (
        ("train", pictures, "-o", tmp_path / "frozen", *frozen),
        ("embed", pictures, "--encoder", tmp_path / "frozen", "--archive", tmp_path / "a"),
        (
            "train",
            tmp_path / "a",
            "--features",
            "-o",
            tmp_path / "mlp",
            "--bits",
            16,
            "--epochs",
            2,
        ),
        ("embed", pictures, "--encoder", tmp_path / "mlp", "--archive", tmp_path / "b"),
    ):
        result = patchknn(*line)
        assert result.code == 0, result.err
    description = load_bundle(tmp_path / "mlp").description
    assert (description.backbone, description.input, description.feature_dim) == (
        "test_resnet",
        "image",
        256,
    )
    assert description.projection["input_dim"] == 96
    asked = patchknn("query", tmp_path / "b", pictures / "fine" / "1.png", "--format", "ndjson")
    assert asked.code == 0, asked.err
    assert json.loads(asked.out)["neighbours"]
    patchknn(
        "embed", pictures, "-e", tmp_path / "frozen", "-a", tmp_path / "c", "--orientations", 4
    )
    told = patchknn("train", tmp_path / "c", "--features", "-o", tmp_path / "m4", "--epochs", 1)
    assert "--orientations 4" in told.err
    assert "--orientations" not in result.err
    # Deep kNN* of an MLP: it goes on from what the first one learnt, standardisation and all.
    star = ("train", tmp_path / "a", "--features", "--loss", "deep-knn", "--lr", 0, "--epochs", 1)
    result = patchknn(*star, "--from", tmp_path / "mlp", "-o", tmp_path / "star")
    assert result.code == 0, result.err
    before, after = (load_bundle(tmp_path / name) for name in ("mlp", "star"))
    assert after.description.bits == 16
    assert after.description.projection == description.projection
    tensors = load_backbone(after)
    for name, value in load_backbone(before).items():
        np.testing.assert_array_equal(tensors[name], value)
    for line, words in (
        ((*star, "--from", tmp_path / "frozen"), ["frozen", "no MLP"]),
        ((*star, "--from", tmp_path / "mlp", "--hidden", 4), ["--from", "--hidden"]),
        (("train", tmp_path / "b", *star[2:], "--from", tmp_path / "mlp"), ["96", "256"]),
    ):
        refused = patchknn(*line, "-o", tmp_path / "no")
        assert refused.code in (1, 2)
        assert all(word in refused.err for word in words), refused.err


def test_hdf5_features_and_a_table_of_labels_train_an_mlp(patchknn, tmp_path):
    import h5py

    rng = np.random.default_rng(0)
    (tmp_path / "feats").mkdir()
    rows = ["slide,label,patient"]
    for number in range(8):
        label = "AB"[number % 2]
        with h5py.File(tmp_path / "feats" / f"s{number}.h5", "w") as file:
            file["features"] = (rng.normal(size=(20, 12)) + 3 * (label == "A")).astype("f4")
            file["coords"] = rng.integers(0, 9999, (20, 2))
        rows.append(f"s{number},{label},P{number // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    line = ("train", tmp_path / "feats", "--features", "--labels", tmp_path / "labels.csv")
    result = patchknn(*line, "-o", tmp_path / "mlp", "--bits", 8, "--epochs", 3, "--split", "75/25")
    assert result.code == 0, result.err
    assert json.loads(result.out)["p_at_10"] > 0.9
    description = load_bundle(tmp_path / "mlp").description
    assert (description.input, description.input_dim, description.backbone) == (
        "features",
        12,
        None,
    )
    assert (tmp_path / "mlp.splits.csv").read_text().startswith("slide,label,patient,split,x,y\n")
    refused = patchknn(
        "embed", tmp_path, "--encoder", tmp_path / "mlp", "--archive", tmp_path / "a"
    )
    assert refused.code == 1
    assert "stored features of 12" in refused.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["DATA", "--task"]),
        (("--task", "x"), ["--task x", "NAME=DATA"]),
        (("--task", "a=p", "--task-weight", "b=2"), ["--task-weight b", "only a"]),
        (("--task", "a=p", "--task-weight", "a=two"), ["--task-weight a=two"]),
        (("p", "--task-weight", "a=2"), ["--task-weight", "--task"]),
        (("p", "--labels", "l.csv"), ["--labels", "--features"]),
        (("p", "--features", "--validation", "q"), ["--features"]),
        (("p", "--from", "nowhere"), ["nowhere", "encoder.json"]),
    ],
)
def test_wrong_sources_are_refused_in_one_sentence(patchknn, tmp_path, options, words):
    start = () if {"--from", "--features"} & set(options) else ("--backbone", "test_resnet")
    result = patchknn("train", *options, *start, "-o", tmp_path / "e")
    assert result.code in {1, 2}
    assert len(result.err.strip().splitlines()) == 1
    assert all(word in result.err for word in words), result.err
