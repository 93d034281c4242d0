#!/usr/bin/env python3
"""How small may an object be? Accuracy over ratio, training size and pooling (Pawlowski 2019).

usage: needles.py OUT [--ratios 19% 6.25% …] [--train 500 2000 …] [--poolings max mean …]

Writes OUT/results.csv, a row per network, and OUT/curve.png and .svg. What is in results.csv
already is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from curve import draw_curve, limits
from network import POOLINGS, build_network
from torch import nn

from patchknn.errors import PatchknnError
from patchknn.simulate.needle_settings import NeedleSettings
from patchknn.simulate.needles import draw, plan_images

COLUMNS = (
    *(
        "kind",
        "ratio",
        "size_px",
        "object_px",
        "mpp",
        "clutter",
        "train",
        "pooling",
        "seed",
        "test",
    ),
    *("batches", "width", "train_accuracy", "accuracy", "seconds"),
)
_KEYS = COLUMNS[: COLUMNS.index("train_accuracy")]
_FOUND = ("train_accuracy", "accuracy", "seconds")


def main() -> None:
    """Train what is missing, then draw."""
    options = _parse()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.csv"
    done = {_key(row) for row in read_results(results)}
    for ratio in options.ratios:
        size_px = round(options.object_px / math.sqrt(ratio))
        for seed in range(options.seeds):
            wanted = [
                condition
                for train in options.train
                for pooling in options.poolings
                if _key(condition := _condition(options, size_px, train, pooling, seed)) not in done
            ]
            if not wanted:
                continue
            images, labels = make_images(options, ratio, size_px, seed)
            for condition in wanted:
                found = train_and_judge(condition, images, labels, options.device)
                _append(results, condition | found)
                print(_told(condition | found), flush=True)
    rows = read_results(results)
    draw_curve(rows, options.out)
    print(limits(rows))


def _told(row: dict[str, object]) -> str:
    return (
        f"{100 * row['ratio']:.3g} % ({row['size_px']} px), {row['train']} images, "
        f"{row['pooling']}, seed {row['seed']}: accuracy {row['accuracy']:.3f} "
        f"(training {row['train_accuracy']:.3f}), {row['seconds']:.0f} s"
    )


def make_images(
    options: argparse.Namespace, ratio: float, size_px: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images, then test images: uint8 (n, C, size, size), and whether each has a needle.

    Smaller trainings take the first of them, so that they differ by their number alone.
    """
    train = max(options.train)
    settings = NeedleSettings(
        kind=options.kind,
        ratio=ratio,
        images=train + options.test,
        size_px=size_px,
        clutter=options.clutter,
        split=(train, 0, options.test),
        mpp=options.mpp,
        seed=seed,
    )
    planned = plan_images(settings)
    pixels = torch.from_numpy(np.stack([draw(settings, image)[1] for image in planned]))
    grid = pixels.movedim(3, 1) if pixels.dim() == 4 else pixels[:, None]
    return grid.contiguous(), torch.tensor([float(image.positive) for image in planned])


def train_and_judge(
    condition: dict[str, object], images: torch.Tensor, labels: torch.Tensor, device: str
) -> dict[str, float]:
    """Accuracy on the test images of one network, and on the images that it learnt from.

    Nothing is chosen by the test images: the network of the last batch is judged.
    """
    began = time.perf_counter()
    train, test = int(condition["train"]), int(condition["test"])
    torch.manual_seed(int(condition["seed"]))
    network = build_network(
        *(images.shape[1], int(condition["object_px"])),
        *(str(condition["pooling"]), int(condition["width"])),
    ).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    batches = int(condition["batches"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=batches)
    judge = nn.BCEWithLogitsLoss()
    order = torch.empty(0, dtype=torch.long)
    network.train()
    for _ in range(batches):
        if len(order) < 32:
            order = torch.cat([order, torch.randperm(train)])
        chosen, order = order[:32], order[32:]
        loss = judge(network(_scaled(images[chosen], device)), labels[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    return {
        "train_accuracy": _accuracy(network, images[:train], labels[:train], device),
        "accuracy": _accuracy(network, images[-test:], labels[-test:], device),
        "seconds": time.perf_counter() - began,
    }


@torch.no_grad()
def _accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, device: str) -> float:
    logits = torch.cat([network(_scaled(part, device)).cpu() for part in images.split(64)])
    return float(((logits > 0) == (labels > 0.5)).float().mean())


def _scaled(images: torch.Tensor, device: str) -> torch.Tensor:
    floats = images.to(device).float().div_(127.5).sub_(1)
    return floats.to(memory_format=torch.channels_last)


def _condition(
    options: argparse.Namespace, size_px: int, train: int, pooling: str, seed: int
) -> dict[str, object]:
    return {
        "kind": options.kind,
        "ratio": (options.object_px / size_px) ** 2,
        "size_px": size_px,
        "object_px": options.object_px,
        "mpp": options.mpp,
        "clutter": options.clutter,
        "train": train,
        "pooling": pooling,
        "seed": seed,
        "test": options.test,
        "batches": options.batches,
        "width": options.width,
    }


def _key(row: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in _KEYS)


def read_results(path: Path) -> list[dict[str, str]]:
    """Rows of a table of results; none where there is no table yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, row: dict[str, object]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row | {name: f"{row[name]:.4f}" for name in _FOUND})


def _ratio(text: str) -> float:
    value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: 1% or 0.01, say")
    return value


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for table and figure")
    ratios = [0.19, 0.0625, 0.0278, 0.0156, 0.00694]
    parser.add_argument("--ratios", type=_ratio, nargs="+", default=ratios)
    parser.add_argument("--train", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--poolings", nargs="+", choices=POOLINGS, default=list(POOLINGS))
    parser.add_argument("--seeds", type=int, default=1, help="repetitions: other images, weights")
    parser.add_argument("--kind", choices=("digits", "tissue"), default="digits")
    parser.add_argument("--object-px", type=int, default=8, help="canvases are as large as needed")
    parser.add_argument("--clutter", type=float, help="share of places with an object")
    parser.add_argument("--mpp", type=float, default=1.0, help="of tissue")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument("--batches", type=int, default=500, help="of 32 images, for every network")
    parser.add_argument("--width", type=int, default=24, help="features of the network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.clutter is None:
        options.clutter = {"digits": 0.5, "tissue": 0.15}[options.kind]
    return options


if __name__ == "__main__":
    try:
        main()
    except PatchknnError as error:
        raise SystemExit(f"needles.py: {error}") from None
