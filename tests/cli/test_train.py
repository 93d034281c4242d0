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
