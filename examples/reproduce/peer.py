#!/usr/bin/env python3
"""Train a backbone with timm and pytorch-metric-learning, as its users do, to compare with.

``peer.py images`` writes the backbone's state dict: `patchknn train --loss none --weights` makes
an encoder of it, which the same commands judge. ``peer.py features`` trains an MLP on stored
features (.npz of metric_learning.py export) and writes what it makes of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from pytorch_metric_learning import losses, miners, samplers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms import v2

# What is no setting of the training itself.
_PLACES = ("command", "output", "workers", "train", "others")


def main() -> None:
    """Train unless the output is there with the same settings."""
    options = _options()
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)  # noqa: NPY002 -- the sampler of batches draws from it
    settings = {k: str(v) for k, v in sorted(vars(options).items()) if k not in _PLACES}
    if options.command == "features":
        _train_on_features(options)
    elif _is_there(options.output, settings):
        print(f"{options.output} is already trained with these settings.")
    else:
        _train_on_images(options, settings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    images = commands.add_parser("images")
    images.add_argument("train", type=Path, help="Manifest (CSV) with path and label.")
    images.add_argument("--backbone", required=True)
    images.add_argument("--weights", type=Path, help="Else timm's own.")
    images.add_argument("--model-arg", action="append", default=[], metavar="NAME=VALUE")
    images.add_argument("--mean", default="0.485,0.456,0.406")
    images.add_argument("--std", default="0.229,0.224,0.225")
    images.add_argument("--size", type=int, default=224)
    images.add_argument("--batch-norm", choices=("frozen", "trained"), default="frozen")
    features = commands.add_parser("features")
    features.add_argument("train", type=Path, help="An .npz with features and labels.")
    features.add_argument("others", type=Path, nargs="*", help="More to apply the MLP to.")
    features.add_argument("--hidden", type=int, default=512)
    features.add_argument("--output-dim", type=int, default=256)
    for command in (images, features):
        command.add_argument("-o", "--output", type=Path, required=True)
        command.add_argument("--miner", choices=sorted(_MINERS), default="easy-positive")
        command.add_argument("--margin", type=float, default=0.2)
        command.add_argument("--triplet-weight", type=float, default=1.0, help="0: no triplets.")
        command.add_argument("--batches", choices=("balanced", "shuffled"))
        command.add_argument("--epochs", type=int, default=8)
        command.add_argument("--batch-size", type=int, default=64)
        command.add_argument("--lr", type=float, default=3e-4)
        command.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


_MINERS: dict[str, Callable[[float], nn.Module]] = {
    "easy-positive": lambda _: miners.BatchEasyHardMiner(
        pos_strategy="easy", neg_strategy="semihard"
    ),
    "semi-hard": lambda margin: miners.TripletMarginMiner(margin, type_of_triplets="semihard"),
    "hard": lambda _: miners.BatchHardMiner(),
    "none": lambda _: None,
}


def _train_on_images(options: argparse.Namespace, settings: dict[str, str]) -> None:
    pixels, names = _read_images(options.train, options.size)
    classes = sorted(set(names))
    labels = torch.tensor([classes.index(name) for name in names])
    trunk = _backbone(options).to(memory_format=torch.channels_last)
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomChoice([_turn(n) for n in range(4)]),
        ]
    )
    mean, std = (
        torch.tensor([float(part) for part in text.split(",")]).view(1, -1, 1, 1)
        for text in (options.mean, options.std)
    )

    def inputs(rows: list[int]) -> Tensor:
        images = torch.stack([augment(pixels[row]) for row in rows])
        return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    _fit(trunk, inputs, labels, len(classes), options, frozen=options.batch_norm == "frozen")
    state = {name: value.contiguous().cpu() for name, value in trunk.state_dict().items()}
    unfinished = options.output.with_suffix(".part")
    save_file(state, unfinished, settings)
    unfinished.replace(options.output)


def _train_on_features(options: argparse.Namespace) -> None:
    tables = [dict(np.load(path)) for path in (options.train, *options.others)]
    features = torch.from_numpy(tables[0]["features"]).float()
    classes, numbers = np.unique(tables[0]["labels"], return_inverse=True)
    widths = [features.shape[1], options.hidden, options.hidden]
    layers = [
        nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
        for before, after in pairwise(widths)
    ]
    trunk = nn.Sequential(*layers, nn.Linear(options.hidden, options.output_dim))
    _fit(trunk, lambda rows: features[rows], torch.from_numpy(numbers), len(classes), options)
    trunk.eval()
    options.output.mkdir(parents=True, exist_ok=True)
    for path, table in zip((options.train, *options.others), tables, strict=True):
        with torch.inference_mode():
            made = trunk(torch.from_numpy(table["features"]).float()).numpy()
        np.savez(options.output / path.name, features=made, labels=table["labels"])


def _fit(
    trunk: nn.Module,
    inputs: Callable[[list[int]], Tensor],
    labels: Tensor,
    n_classes: int,
    options: argparse.Namespace,
    *,
    frozen: bool = False,
) -> None:
    """Cross-entropy on a linear classifier, triplets on the features; AdamW, OneCycle."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trunk.to(device)
    with torch.inference_mode():
        width = trunk.eval()(inputs([0, 1]).to(device)).shape[1]
    classifier = nn.Linear(width, n_classes).to(device)
    triplet = losses.TripletMarginLoss(margin=options.margin) if options.triplet_weight else None
    miner = _MINERS[options.miner](options.margin)
    parameters = [*trunk.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr)
    steps = max(len(labels) // options.batch_size, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, epochs=options.epochs, steps_per_epoch=steps
    )
    log = []
    for epoch in range(1, options.epochs + 1):
        trunk.train()
        if frozen:
            for module in trunk.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        began, total = time.monotonic(), 0.0
        for rows in _batches(labels, steps, options):
            features, target = trunk(inputs(rows).to(device)), labels[rows].to(device)
            loss = nn.functional.cross_entropy(classifier(features), target)
            if triplet is not None:
                found = None if miner is None else miner(features, target)
                loss = loss + options.triplet_weight * triplet(features, target, found)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        row = {"epoch": epoch, "loss": total / steps, "train_seconds": time.monotonic() - began}
        log.append(row)
        print(f"epoch {epoch}/{options.epochs}: loss {row['loss']:.4f}", flush=True)
    trunk.cpu()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)


def _batches(labels: Tensor, steps: int, options: argparse.Namespace) -> Iterator[list[int]]:
    """Shuffled for cross-entropy alone, the same number of each class for triplets, or as told."""
    size = min(options.batch_size, len(labels))
    if options.batches == "balanced" or (options.batches is None and options.triplet_weight):
        classes = len(labels.unique())
        each = max(size // classes, 2)
        sampler = samplers.MPerClassSampler(labels, each, length_before_new_iter=steps * size)
        order = list(sampler)
    else:
        order = torch.randperm(len(labels)).tolist()
    for step in range(steps):
        yield order[step * size : (step + 1) * size]


def _read_images(manifest: Path, size: int) -> tuple[Tensor, list[str]]:
    """All images (N, 3, S, S) uint8, and their labels."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    for number, row in enumerate(rows):
        with Image.open(manifest.parent / row["path"]) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        pixels[number] = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return pixels, [row["label"] for row in rows]


def _backbone(options: argparse.Namespace) -> nn.Module:
    arguments = {}
    for text in options.model_arg:
        name, _, value = text.partition("=")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    pretrained = options.weights is None
    trunk = timm.create_model(options.backbone, pretrained, num_classes=0, **arguments)
    if not pretrained:
        missing, _ = trunk.load_state_dict(load_file(options.weights), strict=False)
        absent = [name for name in missing if not name.endswith("num_batches_tracked")]
        if absent:
            raise SystemExit(f"{options.weights} lacks {', '.join(absent[:3])}.")
    return trunk


def _turn(quarters: int) -> Callable[[Tensor], Tensor]:
    return lambda image: torch.rot90(image, quarters, (-2, -1))


def _is_there(output: Path, settings: dict[str, str]) -> bool:
    if not output.is_file():
        return False
    with safe_open(output, "pt") as file:
        return file.metadata() == settings


if __name__ == "__main__":
    main()
