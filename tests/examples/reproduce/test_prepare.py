"""Manifests of downloads, in their own layouts."""

from __future__ import annotations

import argparse
import io
import struct

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def prepare(module):
    """``prepare(kind, source, output)``: the split of a download."""

    def prepared(kind, source, output, **options):
        given = argparse.Namespace(output=output, seed=0, **options)
        return module("prepare").KINDS[kind](source, given)

    return prepared


def _check_split(split, classes, share=None):
    names = [[row.name for row in side] for side in split]
    assert not set(names[0]) & set(names[1])
    assert not {row.patient for row in split.train} & {row.patient for row in split.test}
    for side in split:
        assert {row.label for row in side} == set(classes)
        assert all(row.path.is_file() for row in side)
    if share is not None:
        assert len(names[1]) / len(names[0] + names[1]) == pytest.approx(share, abs=0.1)


def test_chest_x_rays_are_split_by_the_patient_in_the_name(tmp_path, module, save, prepare):
    for number in range(40):
        save(tmp_path / "PNEUMONIA" / f"person{number // 2}_virus_{number}.jpeg", 1)
        second = "NORMAL2-" if number % 2 else ""
        save(tmp_path / "NORMAL" / f"{second}IM-{number // 4:04}-0001-000{number % 4}.jpeg", 0)
    split = prepare("chest-xray", tmp_path, tmp_path / "out")
    _check_split(split, ("NORMAL", "PNEUMONIA"), share=0.2)
    assert {row.patient for row in (*split.train, *split.test)} >= {"person7", "IM-0003"}
    assert "NORMAL2-IM-0003" in {row.patient for row in (*split.train, *split.test)}
    thinned = module("prepare")._thinned(split.train, ["NORMAL=5"], seed=0)
    assert sum(row.label == "NORMAL" for row in thinned) == 5
    kept = [row for row in split.train if row.label == "PNEUMONIA"]
    assert [row for row in thinned if row.label == "PNEUMONIA"] == kept


def test_skin7_keeps_lesions_together_and_reads_one_hot_classes(
    tmp_path, save, write_table, prepare
):
    name = "ISIC2018_Task3_Training"
    truth, groups = [["image", "MEL", "NV"]], [["image", "lesion_id", "diagnosis_confirm_type"]]
    for number in range(40):
        image = f"ISIC_{number:07}"
        save(tmp_path / f"{name}_Input" / f"{image}.jpg", number % 2)
        truth.append([image, float(number % 2 == 0), float(number % 2 == 1)])
        groups.append([image, f"HAM_{number % 2}{number // 4}", "consensus"])
    write_table(tmp_path / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv", truth)
    write_table(tmp_path / f"{name}_LesionGroupings.csv", groups)
    split = prepare("skin7", tmp_path, tmp_path / "out")
    _check_split(split, ("MEL", "NV"), share=0.2)
    labels = {row.path.stem: row.label for row in (*split.train, *split.test)}
    assert (labels["ISIC_0000000"], labels["ISIC_0000001"]) == ("MEL", "NV")
    assert len({row.patient for row in (*split.train, *split.test)}) == 20


def test_x_rays_come_out_of_dicom_files_as_they_were_compressed(
    tmp_path, write_table, prepare, picture
):
    rows, streams = [["patientId", "class"]], {}
    folder = tmp_path / "stage_2_train_images"
    folder.mkdir()
    for number in range(20):
        buffer = io.BytesIO()
        picture(number).convert("L").save(buffer, "JPEG")
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
    write_table(tmp_path / "stage_2_detailed_class_info.csv", rows)
    split = prepare("pneumonia", tmp_path, tmp_path / "out")
    _check_split(split, ("Normal", "Lung Opacity"), share=0.2)
    assert len(split.train) + len(split.test) == 20
    for row in (*split.train, *split.test):
        assert row.path.read_bytes() == streams[row.patient]
        assert Image.open(row.path).size == (32, 32)


def test_sd198_takes_the_split_of_the_download(tmp_path, save, prepare):
    sides = {"train": [], "val": []}
    for number in range(20):
        name = f"Disease_{number % 2}/{number:03}.jpg"
        save(tmp_path / "images" / name, number % 2)
        sides["val" if number % 5 == 0 else "train"].append(f"{name} {number % 2}\n")
    without = prepare("sd198", tmp_path, tmp_path / "out")
    _check_split(without, ("Disease_0", "Disease_1"), share=0.2)
    (tmp_path / "8_2_split").mkdir()
    for side, lines in sides.items():
        (tmp_path / "8_2_split" / f"{side}_1.txt").write_text("".join(lines))
    split = prepare("sd198", tmp_path, tmp_path / "out")
    assert [f"{row.name.removeprefix('images/')} {row.label[-1]}\n" for row in split.test] == sides[
        "val"
    ]
    assert [
        f"{row.name.removeprefix('images/')} {row.label[-1]}\n" for row in split.train
    ] == sides["train"]


def test_natural_images_in_their_own_layouts(tmp_path, save, prepare, picture):
    stl10 = tmp_path / "stl10_binary"
    stl10.mkdir()
    (stl10 / "class_names.txt").write_text("airplane\nbird\n")
    pixels = {}
    for side, count in (("train", 4), ("test", 2)):
        pixels[side] = [np.asarray(picture(n, 96)) for n in range(count)]
        columns = np.stack([image.transpose(2, 1, 0) for image in pixels[side]])
        columns.tofile(stl10 / f"{side}_X.bin")
        (np.arange(count, dtype=np.uint8) % 2 + 1).tofile(stl10 / f"{side}_y.bin")
    split = prepare("stl10", stl10, tmp_path / "out")
    _check_split(split, ("airplane", "bird"))
    for side, rows in zip(("train", "test"), split, strict=True):
        for row, image in zip(rows, pixels[side], strict=True):
            assert np.array_equal(np.asarray(Image.open(row.path)), image)

    tiny = tmp_path / "tiny-imagenet-200"
    lines = []
    for number in range(2):
        save(tiny / "train" / f"n{number}" / "images" / f"n{number}_0.JPEG", number)
        save(tiny / "val" / "images" / f"val_{number}.JPEG", number)
        lines.append(f"val_{number}.JPEG\tn{number}\t0\t0\t62\t62\n")
    (tiny / "val" / "val_annotations.txt").write_text("".join(lines))
    _check_split(prepare("tiny-imagenet", tiny, tmp_path / "out"), ("n0", "n1"))

    birds = tmp_path / "CUB_200_2011"
    tables = {"images": "", "image_class_labels": "", "train_test_split": ""}
    for number in range(1, 9):
        name = f"00{number % 2 + 1}.Bird/Bird_{number}.jpg"
        save(birds / "images" / name, number)
        tables["images"] += f"{number} {name}\n"
        tables["image_class_labels"] += f"{number} {number % 2 + 1}\n"
        tables["train_test_split"] += f"{number} {int(number < 6)}\n"
    for name, text in tables.items():
        (birds / f"{name}.txt").write_text(text)
    split = prepare("cub200", birds, tmp_path / "out")
    _check_split(split, ("1", "2"))
    assert len(split.train) == 5
