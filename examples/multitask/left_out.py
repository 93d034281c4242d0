#!/usr/bin/env python3
"""Does an encoder of several tasks serve a task it has not seen better than one of a single task?

usage: left_out.py OUT [--data DIR] [--left-out TASK …] [--seeds 0 1 2]
                    [--images 12000] [--most 3000] [--weights FILE]

Each task is left out in turn (paper C): encoders of each other task, of all the others together,
and the backbone that all start from make features of its images, and the nearest neighbours of
other patients name their classes. OUT/results.csv has a row per encoder and task, OUT/table.md the
table. What is there already is not done again.

data      DIR (PATCHKNN_DATA, else ../shared/data beside the checkout) with
          colon_cells/{train,val}/manifest.csv   four types of nuclei      (task types)
          colon_cells/extra/manifest.csv         cancerous or benign, other patients (task extra)
          lc25000_colon/{train,val}, groups.csv  adenocarcinoma or benign  (task lc25000)
          kather2016_100/CLASS/*.png             eight textures            (task kather2016)
          weights/mobilenetv2_100_tflite_imagenet.f32.safetensors
licence   colon_cells for research only; LC25000; Kather 2016 CC BY 4.0; weights Apache-2.0
hardware  two CPU cores and 4 GB
time      an hour and a half on one core; it may be stopped and started again
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from summary import write_table

TASKS = ("types", "extra", "lc25000", "kather2016")
IMAGENET = "imagenet"
COLUMNS = ("task", "encoder", "seed", "images", "accuracy", "low", "high", "mean_recall", "p_at_k")
_PART, _CLASSES = 8, 4  # of a batch: so many images of so many classes of each task
_WEIGHTS = "mobilenetv2_100_tflite_imagenet.f32.safetensors"
_BACKBONE = ("--backbone", "mobilenetv2_100", "--model-arg", "pad_type=same")
_SCALE = ("--mean", "0.5", "--std", "0.5")
_K = "5"


class Image(NamedTuple):
    """A row of a manifest; its neighbours are of other patients, or where it is "" other images."""

    path: Path
    label: str
    patient: str


def main() -> None:
    """Train, embed and ask what is missing, then write the table."""
    options = _parse()
    out: Path = options.out
    sizes = {task: _prepare(task, options) for task in TASKS}
    results = out / "results.csv"
    done = {(row["task"], row["encoder"], row["seed"]) for row in read_results(results)}
    for seed in map(str, options.seeds):
        for left_out in options.left_out:
            others = [task for task in TASKS if task != left_out]
            for tasks in [[], *([task] for task in others), others]:
                name = "+".join(tasks) or IMAGENET
                if (left_out, name, seed) not in done:
                    encoder = _train(tasks, seed, sizes, options)
                    _append(results, (left_out, name, seed, *_judge(left_out, encoder, options)))
    write_table(out / "table.md", read_results(results), (IMAGENET, *TASKS))
    print((out / "table.md").read_text(), end="")


def read_results(path: Path) -> list[dict[str, str]]:
    """The rows of ``results.csv``, none where it is not there yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def epochs_for(tasks: list[str], sizes: dict[str, Counter[str]], images: int) -> int:
    """Epochs in which an encoder of ``tasks`` sees about so many ``images``.

    A batch has a part of each task, and an epoch ends when each task's images have been seen.
    """
    parts = {task: _PART * min(_CLASSES, len(sizes[task])) for task in tasks}
    batches = max(sizes[task].total() / parts[task] for task in tasks)
    return max(1, round(images / (batches * sum(parts.values()))))


def _prepare(task: str, options: argparse.Namespace) -> Counter[str]:
    """Write the manifest of a task; how many images it has of each class."""
    images = sorted(_READERS[task](options.data))
    if len(images) > options.most:
        images = sorted(random.Random(0).sample(images, options.most))
    file = options.out / "data" / f"{task}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as target:
        rows = [
            (path.absolute(), label, patient, path.relative_to(options.data))
            for path, label, patient in images
        ]
        csv.writer(target).writerows([("path", "label", "patient", "name"), *rows])
    return Counter(image.label for image in images)


def _colon(sides: tuple[str, ...], data: Path) -> list[Image]:
    images = []
    for side in sides:
        folder = data / "colon_cells" / side
        with (folder / "manifest.csv").open(newline="") as file:
            images += [
                Image(folder / row["path"], row["label"], row["patient"])
                for row in csv.DictReader(file)
            ]
    return images


def _lc25000(data: Path) -> list[Image]:
    folder = data / "lc25000_colon"
    with (folder / "groups.csv").open(newline="") as file:
        return [
            Image(
                folder / row["split"] / row["path"],
                row["label"],
                f"{row['label']}-{row['source_tile_group']}",
            )
            for row in csv.DictReader(file)
        ]


def _kather(data: Path) -> list[Image]:
    files = (data / "kather2016_100").glob("*/*.png")
    return [Image(file, file.parent.name, "") for file in files]


_READERS = {
    "types": lambda data: _colon(("train", "val"), data),
    "extra": lambda data: _colon(("extra",), data),
    "lc25000": _lc25000,
    "kather2016": _kather,
}


def _train(
    tasks: list[str], seed: str, sizes: dict[str, Counter[str]], options: argparse.Namespace
) -> Path:
    """The encoder of ``tasks``, or of the backbone alone; trained where it is not there yet."""
    encoder: Path = options.out / "encoders" / f"{'+'.join(tasks) or IMAGENET}-{seed}"
    if (encoder / "encoder.json").exists():
        return encoder
    manifests = [options.out / "data" / f"{task}.csv" for task in tasks]
    common = ["--weights", options.weights, *options.network, "--size", options.size]
    common += ["--split", "none", "--seed", seed, "--output", encoder]
    if tasks:
        epochs = epochs_for(tasks, sizes, options.images)
        given: list[object] = []
        for task, manifest in zip(tasks, manifests, strict=True):
            given += ["--task", f"{task}={manifest}"] if len(tasks) > 1 else [manifest]
        given += ["--loss", "multitask", "--epochs", epochs, "--head-epochs", 0]
        given += ["--classes-per-batch", _CLASSES, "--per-class", _PART]
    else:
        given = [options.out / "data" / "types.csv", "--loss", "none"]
    _patchknn("train", *given, *common, log=options.out / "log")
    return encoder


def _judge(task: str, encoder: Path, options: argparse.Namespace) -> tuple[object, ...]:
    """What the neighbours of other patients say of the images of a task."""
    archive = options.out / "archives" / f"{task}-by-{encoder.name}"
    manifest = options.out / "data" / f"{task}.csv"
    log = options.out / "log"
    _patchknn("embed", manifest, "--encoder", encoder, "--archive", archive, log=log)
    apart = "self" if task == "kather2016" else "patient"
    asked = ["--coarse", "l2", "--exclude-same", apart, "--k", _K, "--baseline", "none"]
    text = _patchknn("evaluate", archive, *asked, "--format", "ndjson", log=log)
    told = json.loads(text)
    low, high = told["intervals"]["accuracy"]
    figures = (told["accuracy"], low, high, told["mean_class_recall"], told["precision_at_k"])
    return (told["n"], *(f"{figure:.4f}" for figure in figures))


def _patchknn(*words: object, log: Path) -> str:
    command = [*os.environ.get("PATCHKNN", "patchknn").split(), *map(str, words)]
    print(time.strftime("%H:%M:%S"), *command[:3], "…", command[-1], file=sys.stderr, flush=True)
    with log.open("a") as file:
        finished = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=file, text=True
        )
    if finished.returncode:
        sys.exit(f"{' '.join(command)} failed; {log} says why.")
    return finished.stdout


def _append(path: Path, row: tuple[object, ...]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row] if fresh else [row])


def _parse() -> argparse.Namespace:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("PATCHKNN_DATA", beside))
    parser.add_argument("--left-out", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=12_000, help="that each encoder sees")
    parser.add_argument("--most", type=int, default=3_000, help="images of a task, by chance")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    options.data = Path(options.data)
    options.weights = options.weights or options.data / "weights" / _WEIGHTS
    # As in examples/reproduce/local.sh: another network, and its weights.
    given = os.environ.get("BACKBONE_OPTIONS")
    options.network = shlex.split(given) if given else [*_BACKBONE, *_SCALE]
    return options


if __name__ == "__main__":
    main()
