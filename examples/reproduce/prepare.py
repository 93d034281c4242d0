#!/usr/bin/env python3
"""Write train.csv and test.csv, manifests for patchknn, of a data set as it is downloaded.

Needs the standard library only; STL10's binary images also NumPy and Pillow.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})


class Row(NamedTuple):
    """One image; ``patient`` is whatever must not stand on both sides (patient, lesion, tile)."""

    path: Path
    label: str
    patient: str
    name: str


class Split(NamedTuple):
    """Images to train on and images to test with."""

    train: list[Row]
    test: list[Row]


def chest_xray(source: Path, options: argparse.Namespace) -> Split:
    """NORMAL/ and PNEUMONIA/ of Kermany 2018, split 80/20 by the patient in the file name.

    ``--keep NORMAL=115`` thins a class among the training images.
    """
    pattern = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")
    rows = []
    for file in _images(source):
        found = pattern.match(file.name)
        if found is None:
            sys.exit(f"{file}: no patient in the name (personN_..., IM-N-...).")
        rows.append(_row(source, file, file.parent.name, found[1] or found[2]))
    return _split_by_patient(rows, 0.2, options.seed)


def lc25000(source: Path, _: argparse.Namespace) -> Split:
    """train/ and val/ with groups.csv, which names the tile that each image was made from."""
    sides: dict[str, list[Row]] = {"train": [], "val": []}
    for entry in _table(source / "groups.csv"):
        file = source / entry["split"] / entry["path"]
        tile = f"{entry['label']}-{entry['source_tile_group']}"
        sides[entry["split"]].append(_row(source, file, entry["label"], tile))
    return Split(sides["train"], sides["val"])


def skin7(source: Path, options: argparse.Namespace) -> Split:
    """ISIC 2018 Task 3, split 80/20; images of one lesion stay together where groupings say so."""
    name = "ISIC2018_Task3_Training"
    lesions = {}
    groupings = _find(source, f"{name}_LesionGroupings.csv")
    if groupings is not None:
        lesions = {entry["image"]: entry["lesion_id"] for entry in _table(groupings)}
    truth = _find(source, f"{name}_GroundTruth.csv")
    if truth is None:
        sys.exit(f"{source} holds no {name}_GroundTruth.csv.")
    rows = []
    for entry in _table(truth):
        image = entry.pop("image")
        label = max(entry, key=lambda column: float(entry[column]))
        file = source / f"{name}_Input" / f"{image}.jpg"
        rows.append(_row(source, file, label, lesions.get(image, image)))
    return _split_by_patient(rows, 0.2, options.seed)


def pneumonia(source: Path, options: argparse.Namespace) -> Split:
    """RSNA 2018 (stage 2), three classes, split 80/20; JPEG streams are taken out of the DICOMs."""
    classes = {
        e["patientId"]: e["class"] for e in _table(source / "stage_2_detailed_class_info.csv")
    }
    images = options.output / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient, label in sorted(classes.items()):
        file = images / f"{patient}.jpg"
        if not file.is_file():
            dicom = source / "stage_2_train_images" / f"{patient}.dcm"
            _write(file, _jpeg_of(dicom))
        rows.append(Row(file, label, patient, file.name))
    return _split_by_patient(rows, 0.2, options.seed)


def sd198(source: Path, options: argparse.Namespace) -> Split:
    """images/CLASS/*.jpg; the download's own 8_2_split where it is there, else 80/20 by chance."""
    lists = sorted((source / "8_2_split").glob("train_*.txt"))
    if not lists:
        rows = [_row(source, file, file.parent.name, file.name) for file in _images(source)]
        return _split_by_patient(rows, 0.2, options.seed)
    train = lists[options.seed % len(lists)]
    files = (train, train.with_name(train.name.replace("train", "val", 1)))
    return Split(
        *([_listed(source, line) for line in file.open() if line.strip()] for file in files)
    )


def stl10(source: Path, options: argparse.Namespace) -> Split:
    """Binary files of 96 px images, column by column, which become PNG files."""
    import numpy as np
    from PIL import Image

    names = (source / "class_names.txt").read_text().split()
    sides = []
    for side in ("train", "test"):
        labels = np.fromfile(source / f"{side}_y.bin", np.uint8)
        pixels = np.memmap(source / f"{side}_X.bin", np.uint8, "r").reshape(-1, 3, 96, 96)
        rows = []
        for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            file = options.output / "images" / side / f"{number:05}.png"
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.transpose(2, 1, 0)).save(file.with_suffix(".tmp"), "PNG")
                file.with_suffix(".tmp").replace(file)
            rows.append(_row(options.output, file, names[label - 1], f"{side}-{number}"))
        sides.append(rows)
    return Split(*sides)


def tiny_imagenet(source: Path, _: argparse.Namespace) -> Split:
    """tiny-imagenet-200: train/CLASS/images/, and val/ with val_annotations.txt as test images."""
    train = [
        _row(source, file, file.parent.parent.name, file.name)
        for file in _images(source / "train", source)
    ]
    test = []
    for line in (source / "val" / "val_annotations.txt").read_text().splitlines():
        name, label = line.split("\t")[:2]
        test.append(_row(source, source / "val" / "images" / name, label, name))
    return Split(train, test)


def cub200(source: Path, _: argparse.Namespace) -> Split:
    """CUB_200_2011: images.txt, image_class_labels.txt and train_test_split.txt."""
    images, labels, sides = (
        dict(line.split() for line in (source / name).read_text().splitlines())
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
    )
    chosen: dict[str, list[Row]] = {"1": [], "0": []}
    for number, name in images.items():
        row = _row(source, source / "images" / name, labels[number], name)
        chosen[sides[number]].append(row)
    return Split(chosen["1"], chosen["0"])


KINDS: dict[str, Callable[[Path, argparse.Namespace], Split]] = {
    "chest-xray": chest_xray,
    "lc25000": lc25000,
    "skin7": skin7,
    "pneumonia": pneumonia,
    "sd198": sd198,
    "stl10": stl10,
    "tiny-imagenet": tiny_imagenet,
    "cub200": cub200,
}


def _images(folder: Path, root: Path | None = None) -> Iterator[Path]:
    """All images below a folder, sorted by name."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGES)
    if not files:
        sys.exit(f"{folder} holds no image; is {root or folder} the folder of the download?")
    return iter(files)


def _row(root: Path, file: Path, label: str, patient: str) -> Row:
    return Row(file, label, patient, file.relative_to(root).as_posix())


def _listed(source: Path, line: str) -> Row:
    name = line.strip().rsplit(" ", 1)[0].removeprefix("images/")
    return _row(source, source / "images" / name, name.split("/")[0], name)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _find(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.rglob(name))), None)


def _split_by_patient(rows: list[Row], share: float, seed: int) -> Split:
    """Of every class whole patients, drawn by chance, until ``share`` of its images are out."""
    members = defaultdict(list)
    for row in rows:
        members[row.patient].append(row)
    by_class = defaultdict(list)
    for patient, images in sorted(members.items()):
        by_class[images[0].label].append(patient)
    test: set[str] = set()
    for label in sorted(by_class):
        patients = by_class[label]
        random.Random(f"{seed} {label}").shuffle(patients)
        wanted = share * sum(len(members[patient]) for patient in patients)
        taken = 0
        for patient in patients:
            if taken >= wanted:
                break
            test.add(patient)
            taken += len(members[patient])
    return Split(
        [row for row in rows if row.patient not in test],
        [row for row in rows if row.patient in test],
    )


def _thinned(rows: list[Row], keep: Iterable[str], seed: int) -> list[Row]:
    for text in keep:
        label, _, count = text.partition("=")
        own = [row for row in rows if row.label == label]
        if len(own) < int(count):
            sys.exit(f"--keep {text}: there are only {len(own)} training images of {label}.")
        kept = set(random.Random(f"{seed} keep").sample(own, int(count)))
        rows = [row for row in rows if row.label != label or row in kept]
    return rows


def _jpeg_of(path: Path) -> bytes:
    """The JPEG stream of a DICOM file's pixel data, as it is: nothing is compressed again."""
    content = path.read_bytes()
    # Pixel data (7FE0,0010) of VR OB and undefined length: items of (FFFE,E000), ended by
    # (FFFE,E0DD). The first item is the table of offsets.
    place = content.find(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff")
    parts = []
    if place >= 0:
        place += 12
        while content[place : place + 4] == b"\xfe\xff\x00\xe0":
            (length,) = struct.unpack_from("<I", content, place + 4)
            parts.append(content[place + 8 : place + 8 + length])
            place += 8 + length
    stream = b"".join(parts[1:])
    if not stream.startswith(b"\xff\xd8\xff"):
        sys.exit(f"{path} holds no JPEG stream; convert it to {path.stem}.jpg by other means.")
    return stream


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _write_manifest(path: Path, rows: list[Row]) -> None:
    missing = [row.path for row in rows if not row.path.is_file()]
    if missing:
        sys.exit(f"{missing[0]} does not exist ({len(missing)} such images).")
    lines = [["path", "label", "patient", "name"]]
    lines += [[str(row.path.resolve()), row.label, row.patient, row.name] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    unfinished.replace(path)


def main() -> None:
    """Write the manifests and say what they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("source", type=Path, help="The folder of the download.")
    parser.add_argument("output", type=Path, help="Where train.csv and test.csv go.")
    parser.add_argument("--seed", type=int, default=0, help="Of splits made here.")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="CLASS=N", help="Thin a training class."
    )
    options = parser.parse_args()
    split = KINDS[options.kind](options.source, options)
    train = _thinned(split.train, options.keep, options.seed)
    for name, rows in (("train", train), ("test", split.test)):
        _write_manifest(options.output / f"{name}.csv", rows)
        counts = sorted(Counter(row.label for row in rows).items())
        shown = ", ".join(f"{label} {count}" for label, count in counts[:9])
        more = f" and {len(counts) - 9} more classes" if len(counts) > 9 else ""
        print(f"{options.output / name}.csv: {len(rows)} images ({shown}{more})", file=sys.stderr)


if __name__ == "__main__":
    main()
