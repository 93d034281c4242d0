"""The scripts of examples/reproduce/ on miniature data in the layouts of the downloads."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

_FOLDER = Path(__file__).resolve().parents[2] / "examples" / "reproduce"
_CLASSES = ("epithelial", "fibroblast", "inflammatory")


def _module(name):
    specification = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # NamedTuple looks its module up
    specification.loader.exec_module(module)
    return module


def _picture(number, pixels=32):
    """Noise about the colour of a class."""
    random = np.random.default_rng(number)
    colour = np.array([40 + 80 * (number % 3), 120, 220 - 80 * (number % 3)])
    noisy = colour + random.normal(0, 40, (pixels, pixels, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _save(path, number, pixels=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    _picture(number, pixels).save(path)


def _write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("script", sorted(_FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_bash_can_parse(script):
    finished = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


# Manifests of downloads.


def _prepare(kind, source, output, **options):
    prepare = _module("prepare")
    given = argparse.Namespace(output=output, seed=0, **options)
    return prepare.KINDS[kind](source, given)


def _check_split(split, classes, share=None):
    names = [[row.name for row in side] for side in split]
    assert not set(names[0]) & set(names[1])
    assert not {row.patient for row in split.train} & {row.patient for row in split.test}
    for side in split:
        assert {row.label for row in side} == set(classes)
        assert all(row.path.is_file() for row in side)
    if share is not None:
        assert len(names[1]) / len(names[0] + names[1]) == pytest.approx(share, abs=0.1)


def test_chest_x_rays_are_split_by_the_patient_in_the_name(tmp_path):
    for number in range(40):
        _save(tmp_path / "PNEUMONIA" / f"person{number // 2}_virus_{number}.jpeg", 1)
        second = "NORMAL2-" if number % 2 else ""
        _save(tmp_path / "NORMAL" / f"{second}IM-{number // 4:04}-0001-000{number % 4}.jpeg", 0)
    split = _prepare("chest-xray", tmp_path, tmp_path / "out")
    _check_split(split, ("NORMAL", "PNEUMONIA"), share=0.2)
    assert {row.patient for row in (*split.train, *split.test)} >= {"person7", "IM-0003"}
    assert "NORMAL2-IM-0003" in {row.patient for row in (*split.train, *split.test)}
    thinned = _module("prepare")._thinned(split.train, ["NORMAL=5"], seed=0)
    assert sum(row.label == "NORMAL" for row in thinned) == 5
    kept = [row for row in split.train if row.label == "PNEUMONIA"]
    assert [row for row in thinned if row.label == "PNEUMONIA"] == kept


def test_skin7_keeps_lesions_together_and_reads_one_hot_classes(tmp_path):
    name = "ISIC2018_Task3_Training"
    truth, groups = [["image", "MEL", "NV"]], [["image", "lesion_id", "diagnosis_confirm_type"]]
    for number in range(40):
        image = f"ISIC_{number:07}"
        _save(tmp_path / f"{name}_Input" / f"{image}.jpg", number % 2)
        truth.append([image, float(number % 2 == 0), float(number % 2 == 1)])
        groups.append([image, f"HAM_{number % 2}{number // 4}", "consensus"])
    _write_table(tmp_path / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv", truth)
    _write_table(tmp_path / f"{name}_LesionGroupings.csv", groups)
    split = _prepare("skin7", tmp_path, tmp_path / "out")
    _check_split(split, ("MEL", "NV"), share=0.2)
    labels = {row.path.stem: row.label for row in (*split.train, *split.test)}
    assert (labels["ISIC_0000000"], labels["ISIC_0000001"]) == ("MEL", "NV")
    assert len({row.patient for row in (*split.train, *split.test)}) == 20


def test_x_rays_come_out_of_dicom_files_as_they_were_compressed(tmp_path):
    rows, streams = [["patientId", "class"]], {}
    folder = tmp_path / "stage_2_train_images"
    folder.mkdir()
    for number in range(20):
        buffer = io.BytesIO()
        _picture(number).convert("L").save(buffer, "JPEG")
        stream = buffer.getvalue()
        stream += b"\0" * (len(stream) % 2)
        half = len(stream) // 4 * 2  # in two fragments, as the standard allows
        items = [b"", stream[:half], stream[half:]]
        content = b"\0" * 128 + b"DICM" + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        for item in items:
            content += b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
        content += b"\xfe\xff\xdd\xe0" + struct.pack("<I", 0)
        patient = f"patient{number:02}"
        (folder / f"{patient}.dcm").write_bytes(content)
        streams[patient] = stream
        label = ("Normal", "Lung Opacity")[number % 2]
        rows += [[patient, label]] * (1 + number % 2)  # a row per box: patients come repeatedly
    _write_table(tmp_path / "stage_2_detailed_class_info.csv", rows)
    split = _prepare("pneumonia", tmp_path, tmp_path / "out")
    _check_split(split, ("Normal", "Lung Opacity"), share=0.2)
    assert len(split.train) + len(split.test) == 20
    for row in (*split.train, *split.test):
        assert row.path.read_bytes() == streams[row.patient]
        assert Image.open(row.path).size == (32, 32)


def test_sd198_takes_the_split_of_the_download(tmp_path):
    sides = {"train": [], "val": []}
    for number in range(20):
        name = f"Disease_{number % 2}/{number:03}.jpg"
        _save(tmp_path / "images" / name, number % 2)
        sides["val" if number % 5 == 0 else "train"].append(f"{name} {number % 2}\n")
    without = _prepare("sd198", tmp_path, tmp_path / "out")
    _check_split(without, ("Disease_0", "Disease_1"), share=0.2)
    (tmp_path / "8_2_split").mkdir()
    for side, lines in sides.items():
        (tmp_path / "8_2_split" / f"{side}_1.txt").write_text("".join(lines))
    split = _prepare("sd198", tmp_path, tmp_path / "out")
    assert [f"{row.name.removeprefix('images/')} {row.label[-1]}\n" for row in split.test] == sides[
        "val"
    ]
    assert [
        f"{row.name.removeprefix('images/')} {row.label[-1]}\n" for row in split.train
    ] == sides["train"]


def test_natural_images_in_their_own_layouts(tmp_path):
    stl10 = tmp_path / "stl10_binary"
    stl10.mkdir()
    (stl10 / "class_names.txt").write_text("airplane\nbird\n")
    pixels = {}
    for side, count in (("train", 4), ("test", 2)):
        pixels[side] = [np.asarray(_picture(n, 96)) for n in range(count)]
        columns = np.stack([image.transpose(2, 1, 0) for image in pixels[side]])
        columns.tofile(stl10 / f"{side}_X.bin")
        (np.arange(count, dtype=np.uint8) % 2 + 1).tofile(stl10 / f"{side}_y.bin")
    split = _prepare("stl10", stl10, tmp_path / "out")
    _check_split(split, ("airplane", "bird"))
    for side, rows in zip(("train", "test"), split, strict=True):
        for row, image in zip(rows, pixels[side], strict=True):
            assert np.array_equal(np.asarray(Image.open(row.path)), image)

    tiny = tmp_path / "tiny-imagenet-200"
    lines = []
    for number in range(2):
        _save(tiny / "train" / f"n{number}" / "images" / f"n{number}_0.JPEG", number)
        _save(tiny / "val" / "images" / f"val_{number}.JPEG", number)
        lines.append(f"val_{number}.JPEG\tn{number}\t0\t0\t62\t62\n")
    (tiny / "val" / "val_annotations.txt").write_text("".join(lines))
    _check_split(_prepare("tiny-imagenet", tiny, tmp_path / "out"), ("n0", "n1"))

    birds = tmp_path / "CUB_200_2011"
    tables = {"images": "", "image_class_labels": "", "train_test_split": ""}
    for number in range(1, 9):
        name = f"00{number % 2 + 1}.Bird/Bird_{number}.jpg"
        _save(birds / "images" / name, number)
        tables["images"] += f"{number} {name}\n"
        tables["image_class_labels"] += f"{number} {number % 2 + 1}\n"
        tables["train_test_split"] += f"{number} {int(number < 6)}\n"
    for name, text in tables.items():
        (birds / f"{name}.txt").write_text(text)
    split = _prepare("cub200", birds, tmp_path / "out")
    _check_split(split, ("1", "2"))
    assert len(split.train) == 5


# Figures of merit.


@pytest.mark.parametrize("counts", [[50, 50], [115, 3500], [10, 20, 30], [5, 1, 9, 7, 40]])
def test_needed_entropy_is_the_mean_over_all_bipartitions(counts):
    total, entropies = sum(counts), {}
    for size in range(1, len(counts)):
        for members in combinations(range(len(counts)), size):
            others = tuple(n for n in range(len(counts)) if n not in members)
            p = sum(counts[n] for n in members) / total
            both = frozenset((members, others))  # one way, whichever side is called 1
            entropies[both] = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    assert len(entropies) == 2 ** (len(counts) - 1) - 1
    expected = sum(entropies.values()) / len(entropies)
    assert _module("table").needed_entropy(counts) == pytest.approx(expected, rel=1e-12)


def test_needed_entropy_of_many_classes_is_drawn():
    assert _module("table").needed_entropy([7] * 40) == pytest.approx(0.98, abs=0.02)
    assert _module("table").needed_entropy([7]) is None


def test_a_table_gives_mean_and_deviation_over_seeds(tmp_path):
    table = _module("table")
    for seed, accuracy in enumerate((0.90, 0.94)):
        run = tmp_path / "runs" / "cells" / "multitask" / f"seed{seed}"
        (run / "encoder").mkdir(parents=True)
        figures = {
            "accuracy": accuracy,
            "mean_ball": 25.0,
            "all_k_true": 0.8,
            "ece": None,
            "settings": {"rows": 100},
        }
        (run / "radius1.ndjson").write_text(json.dumps(figures) + "\n")
        training = {"class_counts": {"a": 10, "b": 30}}
        described = {"metrics": {"bit_entropy": 0.5}, "training": training}
        (run / "encoder" / "encoder.json").write_text(json.dumps(described))
        log = "epoch,train_seconds\n0,\n1,2.0\n2,4.0\n"
        (run / "encoder" / "training.csv").write_text(log)
    (tmp_path / "runs" / "cells" / "multitask" / "seed2").mkdir()  # not there yet
    several = tmp_path / "runs" / "cells" / "two-tasks" / "seed0"
    (several / "encoder").mkdir(parents=True)
    (several / "radius1.ndjson").write_text(json.dumps({"accuracy": 0.5}) + "\n")
    training = {"class_counts": {"types": {"a": 10, "b": 30}, "extra": {"c": 1, "d": 1}}}
    described = {"metrics": {"bit_entropy": 0.5}, "training": training}
    (several / "encoder" / "encoder.json").write_text(json.dumps(described))
    rows = table._rows(table.read_runs(tmp_path / "runs"), table.COLUMNS)
    line, other = [
        text for text in table.markdown(rows, table.COLUMNS).splitlines() if "multitask" in text
    ]
    assert other.startswith("| multitask, two tasks | 50.0 |")
    titles = ["method", *(column.title for column in table.COLUMNS)]
    cells = dict(zip(titles, line.strip("| ").split(" | "), strict=True))
    assert cells["Acc"] == "92.0 ± 2.8"
    assert cells["mean ball"] == "25.0 ± 0.0"
    needed = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert cells["of needed"] == f"{0.5 / needed:.2f} ± 0.00"
    assert cells["s/epoch"] == "3.0 ± 0.0"
    assert cells["ECE"] == cells["P@10, r = 2"] == "–"
    written, _ = csv.DictReader(io.StringIO(table.as_csv(rows, table.COLUMNS)))
    assert float(written["Acc sd"]) == pytest.approx(np.std([0.90, 0.94], ddof=1))


def test_stored_features_are_judged_by_their_neighbours(tmp_path, capsys, monkeypatch):
    random = np.random.default_rng(3)
    labels, true = (np.array(_CLASSES)[random.integers(0, 3, count)] for count in (90, 40))
    features, queries = (random.normal(size=(count, 8)) for count in (90, 40))
    centres = {name: random.normal(size=8) for name in _CLASSES}
    features += [centres[name] for name in labels]
    queries += [centres[name] for name in true]
    np.savez(tmp_path / "train.npz", features=features, labels=labels)
    np.savez(tmp_path / "test.npz", features=queries, labels=true)
    words = ["judge", str(tmp_path / "train.npz"), str(tmp_path / "test.npz"), "--k", "5"]
    found = {}
    for method in ("knn", "nca"):
        monkeypatch.setattr(sys, "argv", ["metric_learning.py", *words, "--method", method])
        _module("metric_learning").main()
        found[method] = json.loads(capsys.readouterr().out)
    hits = []
    for query, name in zip(queries, true, strict=True):
        nearest = np.argsort(((features - query) ** 2).sum(1), kind="stable")[:5]
        hits.append((labels[nearest] == name).sum())
    assert found["knn"]["l2_precision_at_k"] == pytest.approx(np.mean(hits) / 5)
    assert found["knn"]["all_k_true"] == pytest.approx(np.mean(np.array(hits) == 5))
    assert found["knn"]["accuracy"] >= np.mean(np.array(hits) >= 3)
    assert found["nca"]["accuracy"] > 0.5


# The scripts themselves.

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the scripts need jq")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A PATH with this installation's patchknn, and weights of a small network."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "patchknn").write_text(f'#!/bin/sh\nexec {sys.executable} -m patchknn "$@"\n')
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
def test_local_makes_its_table_and_goes_on_where_it_was(environment, tmp_path):
    for side, patients in (("train", 4), ("val", 2)):
        rows = [["path", "label", "patient"]]
        for number in range(24 if side == "train" else 12):
            name = f"images/{side}{number}.png"
            _save(tmp_path / "data" / "colon_cells" / side / name, number, 27)
            rows.append([name, _CLASSES[number % 3], f"{side}{number // 3 % patients}"])
        _write_table(tmp_path / "data" / "colon_cells" / side / "manifest.csv", rows)
    settings = environment | {
        "PATCHKNN_DATA": str(tmp_path / "data"),
        "DATASETS": "colon_cells",
        "METHODS": "cross-entropy-8",  # and the row whose encoder it takes over
        "EPOCHS": "1",
        "EXTRAS": "0",
        "SIZE": "32",
        "BACKBONE_OPTIONS": "--backbone test_resnet",
        "WEIGHTS_FILE": f"{environment['WEIGHTS']}/test_resnet.safetensors",
        "TRAIN_OPTIONS": "--head-epochs 1 --workers 0",
        "JOBS": "2",
    }
    out = tmp_path / "out"
    finished = _run(settings, _FOLDER / "local.sh", out)
    run = out / "runs" / "colon_cells" / "cross-entropy" / "seed0"
    figures = json.loads((run / "radius1.ndjson").read_text())
    assert figures["n"] == 12
    assert figures["settings"]["rows"] == 24
    row, averaged = _read_table(out / "table.csv")
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
    described = json.loads((run / "encoder" / "encoder.json").read_text())
    assert described["training"]["validation_images"] == 0
    assert described["training"]["best_epoch"] == 1
    # Of what is missing all is made again, and nothing else.
    (run / "radius2.ndjson").unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.*") if path.name != "log"}
    again = _run(settings, _FOLDER / "local.sh", out)
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


@needs_jq
@pytest.mark.timeout(1200)
def test_crc_splits_the_tissue_and_asks_the_other_cohort(environment, tmp_path):
    for folder, each in (("NCT-CRC-HE-100K", 10), ("CRC-VAL-HE-7K", 3)):
        for number, label in enumerate(("ADI", "BACK", "TUM")):
            for image in range(each):
                name = f"{label}-{folder[:3]}{image}.tif"
                _save(tmp_path / folder / label / name, number + 3 * image)
    settings = environment | {
        "METHODS": "multitask",
        "TRAIN_OPTIONS": "--size 32 --epochs 1 --head-epochs 1 --workers 0",
    }
    out = tmp_path / "out"
    _run(settings, _FOLDER / "crc.sh", tmp_path, out)
    run = out / "runs" / "crc" / "multitask" / "seed0"
    splits = [row["split"] for row in _read_table(run / "encoder.splits.csv")]
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
    rows = {row["method"]: row for row in _read_table(out / "table.csv")}
    assert float(rows["multitask, crc-val"]["classifier Acc"]) == other["classifier_accuracy"]


@pytest.mark.timeout(600)
def test_a_peer_s_backbone_keeps_its_batch_norm_statistics(environment, tmp_path):
    rows = [["path", "label"]]
    for number in range(24):
        _save(tmp_path / f"{number}.png", number)
        rows.append([f"{number}.png", _CLASSES[number % 3]])
    _write_table(tmp_path / "train.csv", rows)
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
    (row,) = _read_table(tmp_path / "peer.csv")
    assert math.isfinite(float(row["loss"]))
    assert "already trained" in _run(environment, *words).stdout
