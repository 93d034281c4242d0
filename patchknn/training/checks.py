"""Settings that cannot be, refused before anything is read: option and remedy in one sentence."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

from patchknn.errors import UsageError
from patchknn.hamming.packing import check_bits
from patchknn.training.settings import (
    LOSSES,
    MAY_NORMALIZE,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    TrainingSettings,
)

_MININGS = ("semi-hard", "batch-hard", "easy-positive", "all")
_AUGMENTATIONS = ("none", "flip", "light", "colour", "tissue")


def check(settings: TrainingSettings) -> None:
    """Raise UsageError, naming option and remedy, for settings that cannot be."""
    names: dict[str, tuple[str | None, Sequence[str]]] = {
        "--loss": (settings.loss, LOSSES),
        "--optimizer": (settings.optimizer, OPTIMIZERS),
        "--schedule": (settings.schedule, SCHEDULES),
        "--precision": (settings.precision, PRECISIONS),
        "--mining": (settings.mining, _MININGS),
        "--augment": (settings.augment, _AUGMENTATIONS),
    }
    for option, (value, known) in names.items():
        if value is not None:
            _one_of(option, value, known)
    check_bits(settings.bits)
    _check_numbers(settings)
    _check_source(settings)
    parse_max_bad(settings.max_bad, 1)
    if settings.per_class is not None and settings.per_class < 2 and settings.loss != "none":
        message = f"--per-class {settings.per_class} leaves no pair of one class; use 2 or more."
        raise UsageError(message)
    if settings.normalize and settings.loss not in MAY_NORMALIZE:
        message = (
            f"--normalize belongs to --loss {', '.join(sorted(MAY_NORMALIZE))}, not to "
            f"{settings.loss}, which does not compare features."
        )
        raise UsageError(message)
    if settings.w_ce is not None and settings.loss in {"cross-entropy", "none"}:
        message = (
            f"--w-ce weighs the classification beside another loss; --loss {settings.loss} "
            "has no other: leave it away."
        )
        raise UsageError(message)
    if settings.bank is not None and settings.loss != "deep-knn":
        message = f"--bank belongs to --loss deep-knn, not to {settings.loss}."
        raise UsageError(message)


def parse_max_bad(text: str, images: int) -> int:
    """How many of so many images may be unreadable: ``20``, or ``5%`` rounded up."""
    number = text.removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    share = text.endswith("%")
    if not (0 <= value <= (100 if share else math.inf)) or not (share or value.is_integer()):
        message = f"--max-bad {text} is neither a number of images nor a percentage such as 5%."
        raise UsageError(message)
    return math.ceil(value / 100 * images) if share else int(value)


def _check_numbers(settings: TrainingSettings) -> None:
    not_negative = {
        "--epochs": settings.epochs,
        "--head-epochs": settings.head_epochs,
        "--lr": settings.lr,
        "--backbone-lr": settings.backbone_lr,
        "--weight-decay": settings.weight_decay,
        "--clip-norm": settings.clip_norm,
        "--alpha": settings.alpha,
        "--margin": settings.margin,
        **{f"--task-weight {name}": value for name, value in settings.task_weights.items()},
    }
    for option, value in not_negative.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            message = f"{option} {value} must not be negative."
            raise UsageError(message)
    if settings.gamma is not None and not settings.gamma > 0:
        message = f"--gamma {settings.gamma} must be above 0."
        raise UsageError(message)
    at_least_one = {
        "--positives": settings.positives,
        "--negatives": settings.negatives,
        "--accumulate": settings.accumulate,
        "--step-epochs": settings.step_epochs,
        "--bank": settings.bank,
        "--patience": settings.patience,
        "--hidden": settings.hidden,
        "--output-dim": settings.output_dim,
    }
    for option, number in at_least_one.items():
        if number is not None and number < 1:
            message = f"{option} {number} must be 1 or more."
            raise UsageError(message)
    shares = {
        "--ema": (settings.ema, 0.0, 1.0),
        "--label-smoothing": (settings.label_smoothing, 0.0, 1.0),
        "--momentum": (settings.momentum, 0.0, 1.0),
        "--crop": (settings.crop, 0.1, 1.0000001),
        "--step-factor": (settings.step_factor, 0.0, 1.0000001),
    }
    for option, (share, least, below) in shares.items():
        if not least <= share < below:
            message = f"{option} {share} is not between {least:g} and 1."
            raise UsageError(message)


def _check_source(settings: TrainingSettings) -> None:
    start = {
        "--pretrained": settings.pretrained,
        "--weights": settings.weights is not None,
        "--from": settings.from_encoder is not None,
    }
    given = [option for option, there in start.items() if there]
    if len(given) > 1:
        message = f"{given[0]} and {given[1]} exclude each other; give one of them."
        raise UsageError(message)
    if settings.features:
        unfit = [option for option in given if option != "--from"]
        unfit += ["--backbone"] if settings.backbone is not None else []
        if unfit:
            message = f"{unfit[0]} is of no use to stored features; leave it or --features away."
            raise UsageError(message)
    elif settings.backbone is None and settings.from_encoder is None:
        message = "Give --backbone NAME (any timm model), or --from ENCODER to go on from one."
        raise UsageError(message)
    elif settings.backbone is not None and settings.from_encoder is not None:
        message = "--from ENCODER brings its own backbone; leave --backbone away."
        raise UsageError(message)


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value in known:
        return
    close = difflib.get_close_matches(value, known, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(known)}."
    message = f"{option} {value} is unknown; {hint}"
    raise UsageError(message)
