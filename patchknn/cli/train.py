"""``patchknn train``: labelled patches become an encoder bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import console
from patchknn.cli.options import (
    Bits,
    DefaultMpp,
    Device,
    DryRun,
    Format,
    Mpp,
    Seed,
    Size,
    SlideMpp,
    SlidesFolder,
    Workers,
)
from patchknn.errors import InputError, UsageError

if TYPE_CHECKING:
    from patchknn.datasets.patches import Patch, Problem
    from patchknn.training.settings import TrainingSettings

_SOME_INPUTS_FAILED = 3


def train(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="ImageFolders, manifests (CSV, TSV, Parquet with path,label[,patient,slide,"
            "split]), labelled tile sets, or - for paths on stdin.",
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ENCODER", help="The encoder bundle.")
    ],
    backbone: Annotated[
        str,
        typer.Option("--backbone", metavar="NAME", help="Any timm model, hf-hub: or local-dir:."),
    ],
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="multitask (paper A), deep-knn (paper B), cross-entropy, triplet, or none: "
            "keep the backbone and fit codes by ITQ.",
        ),
    ] = "multitask",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from timm's own weights (downloads).")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="Start from a state dict; no network."),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option("--model-arg", metavar="NAME=VALUE", help="Passed to timm; repeatable."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="R,G,B", help="Of images in [0, 1] [the backbone's own]."),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option("--std", metavar="R,G,B", help="Of images in [0, 1] [the backbone's own]."),
    ] = None,
    size: Size = 224,
    bits: Bits = 48,
    epochs: Annotated[
        int, typer.Option("--epochs", min=0, help="Passes over the images, whole network.")
    ] = 10,
    head_epochs: Annotated[
        int | None,
        typer.Option("--head-epochs", min=0, help="Before that, new layers alone [5 or 0]."),
    ] = None,
    classes_per_batch: Annotated[
        int | None, typer.Option("--classes-per-batch", min=1, help="[all, at most 16]")
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option("--per-class", min=1, help="Images of each class in a batch [64/classes]."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="T/V[/T]|NAME|none",
            help="Make splits by patient (70/15/15; they are written beside ENCODER), or train "
            "on a split of the manifest, or on all. Default: the manifest's, else 85/15.",
        ),
    ] = None,
    val_split: Annotated[
        str | None,
        typer.Option("--val-split", metavar="NAME", help="The manifest's split to judge by."),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option("--validation", metavar="DATA", help="Judge epochs by these; repeatable."),
    ] = None,
    optimizer: Annotated[str, typer.Option("--optimizer", help="adamw or sgd.")] = "adamw",
    lr: Annotated[
        float | None, typer.Option("--lr", help="Rate of the new layers [1e-3; sgd 0.01].")
    ] = None,
    backbone_lr: Annotated[
        float | None,
        typer.Option("--backbone-lr", help="Rate of the backbone [3e-4 from weights, else --lr]."),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="[0.01; sgd 1e-4]")
    ] = None,
    warmup: Annotated[
        float, typer.Option("--warmup", min=0, max=1, help="Share of steps in which rates rise.")
    ] = 0.05,
    clip_norm: Annotated[
        float, typer.Option("--clip-norm", min=0, help="Largest gradient norm; 0: any.")
    ] = 5.0,
    freeze_batch_norm: Annotated[
        Literal["auto", "yes", "no"],
        typer.Option("--freeze-batch-norm", help="auto: where the backbone starts from weights."),
    ] = "auto",
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Turn, flip, crop, change colours.")
    ] = True,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="float32, bfloat16 or float16 [by the device]."),
    ] = None,
    device: Device = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", min=0, help="Margin of deep kNN (paper B, Eq. 1) [0.5; not normalised 2]."
        ),
    ] = None,
    positives: Annotated[
        int, typer.Option("--positives", min=1, help="K of deep kNN: neighbours of the class.")
    ] = 5,
    negatives: Annotated[
        int, typer.Option("--negatives", min=1, help="M of deep kNN: neighbours of others.")
    ] = 5,
    margin: Annotated[
        float | None, typer.Option("--margin", min=0, help="Of the triplet loss [soft].")
    ] = None,
    mining: Annotated[
        Literal["semi-hard", "batch-hard"],
        typer.Option("--mining", help="Of the triplet loss; batch-hard collapses more easily."),
    ] = "semi-hard",
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            help="Features on the unit sphere in deep kNN and triplet losses [deep kNN only].",
        ),
    ] = None,
    w_t: Annotated[float, typer.Option("--w-t", min=0, help="Multitask: triplet ratio.")] = 1.0,
    w_c: Annotated[
        float, typer.Option("--w-c", min=0, help="Multitask: Cauchy cross-entropy.")
    ] = 1.0,
    w_q: Annotated[
        float, typer.Option("--w-q", min=0, help="Multitask: Cauchy quantisation.")
    ] = 1.0,
    w_ce: Annotated[float, typer.Option("--w-ce", min=0, help="Multitask: classification.")] = 1.0,
    gamma: Annotated[
        float | None, typer.Option("--gamma", help="Multitask: scale of both [bits/2].")
    ] = None,
    cauchy_distance: Annotated[
        Literal["euclidean", "cosine"],
        typer.Option("--cauchy-distance", help="Multitask: as in paper A, or as in Cao 2018."),
    ] = "euclidean",
    quantization: Annotated[
        Literal["sound", "literal"],
        typer.Option("--quantization", help="Multitask: literal is as printed, and collapses."),
    ] = "sound",
    mpp: Mpp = None,
    slide_mpp: SlideMpp = None,
    default_mpp: DefaultMpp = None,
    slides: SlidesFolder = None,
    workers: Workers = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    format: Format = None,
) -> int:
    """Train an encoder that puts patches of a class next to each other, and write its bundle.

    Stopped or killed, the same command goes on where it was. The epoch whose validation images
    find most neighbours of their class is kept; training.csv in the bundle tells of all.
    """
    from patchknn.cli.train_output import say_plan, show_result
    from patchknn.datasets.listing import choose_mpp
    from patchknn.encoder.backbones import parse_model_args
    from patchknn.training.fit import select_patches, train_encoder
    from patchknn.training.selection import SplitChoice
    from patchknn.training.settings import TrainingSettings, check

    settings = TrainingSettings(
        backbone=backbone,
        loss=loss,
        pretrained=pretrained,
        weights=weights,
        model_args=parse_model_args(model_arg or ()),
        mean=_colour("--mean", mean, least=0.0),
        std=_colour("--std", std, least=1e-6),
        size=size,
        mpp=mpp,
        default_mpp=default_mpp,
        bits=bits,
        epochs=epochs,
        head_epochs=head_epochs,
        classes_per_batch=classes_per_batch,
        per_class=per_class,
        optimizer=optimizer,
        lr=lr,
        backbone_lr=backbone_lr,
        weight_decay=weight_decay,
        warmup=warmup,
        clip_norm=clip_norm,
        freeze_batch_norm=freeze_batch_norm,
        augment=augment,
        precision=precision,
        device=device,
        alpha=alpha,
        positives=positives,
        negatives=negatives,
        margin=margin,
        mining=mining,
        normalize=normalize,
        w_t=w_t,
        w_c=w_c,
        w_q=w_q,
        w_ce=w_ce,
        gamma=gamma,
        cauchy_distance=cauchy_distance,
        quantization=quantization,
        seed=seed,
        workers=workers,
    )
    check(settings)
    if validation and (split is not None or val_split is not None):
        message = "--validation gives the images to judge by; leave --split and --val-split away."
        raise UsageError(message)
    choice = SplitChoice.parse(split, val_split)
    data = list(_expanded(data))
    read_mpp = choose_mpp([*data, *(validation or [])], mpp)
    reading = {
        "size": size,
        "mpp": read_mpp,
        "slide_mpp": slide_mpp,
        "default_mpp": default_mpp,
        "slides_dir": slides,
    }
    patches, problems = _listed(data, reading)
    held_out, more = _listed(validation, reading) if validation else (None, [])
    problems += more
    if not patches and problems:
        message = f"There is nothing to train on: {problems[0].error}"
        raise InputError(message)
    settings = _with_mpp(settings, [*patches, *(held_out or [])], read_mpp)
    if dry_run:
        say_plan(select_patches(patches, settings, choice, held_out), settings, choice)
        return _SOME_INPUTS_FAILED if problems else 0
    result = train_encoder(
        patches,
        settings,
        output,
        console.message,
        choice=choice,
        validation=held_out,
        progress=console.progress,
    )
    failed = [*problems, *result.problems]
    show_result(result, output, failed, console.output_format(format))
    return _SOME_INPUTS_FAILED if failed else 0


def _listed(arguments: Iterable[str], reading: dict[str, Any]) -> tuple[list[Patch], list[Problem]]:
    from patchknn.datasets.listing import iter_patches
    from patchknn.datasets.patches import Problem

    patches, problems = [], []
    for item in iter_patches(arguments, **reading):
        if isinstance(item, Problem):
            console.message(item.error)
            problems.append(item)
        else:
            patches.append(item)
    return patches, problems


def _expanded(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from console.stdin_lines()
        else:
            yield argument


def _with_mpp(settings: TrainingSettings, patches: Sequence[Patch], mpp: float) -> TrainingSettings:
    """Squares of slides are read at a µm/px, plain images as they are unless one is asked for."""
    from dataclasses import replace

    if settings.mpp is None and any(patch.kind == "slide" for patch in patches):
        return replace(settings, mpp=mpp)
    return settings


def _colour(option: str, text: str | None, *, least: float) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(least <= value <= 10 for value in values):
        message = f"{option} {text} is not R,G,B or one number, of images scaled to [0, 1]."
        raise UsageError(message)
    return values[0], values[1], values[2]
