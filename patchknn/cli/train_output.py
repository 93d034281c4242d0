"""What ``train`` says: the plan of a dry run, and the encoder that was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchknn.cli import console

if TYPE_CHECKING:
    from patchknn.datasets.patches import Problem
    from patchknn.training.fit import TrainingResult
    from patchknn.training.selection import Selection, SplitChoice
    from patchknn.training.settings import TrainingSettings

_COLUMNS = (
    "encoder",
    "loss",
    "backbone",
    "train_images",
    "best_epoch",
    "accuracy",
    "p_at_10",
    "seconds",
)


def say_plan(
    selections: Mapping[str, Selection], settings: TrainingSettings, choice: SplitChoice
) -> None:
    """What a run would do, on stderr."""
    from patchknn.training.fit import resolve_for
    from patchknn.training.settings import METRIC

    resolved = resolve_for(settings, selections)
    for task, selection in selections.items():
        for remark in selection.remarks:
            console.warn(remark)
        place = f" of {task}" if len(selections) > 1 else ""
        for name, count in selection.class_counts().items():
            console.message(f"{name}: {count} training images{place}")
    made = "made by patient" if any(s.assigned for s in selections.values()) else "as given"
    how = "no training, codes by ITQ" if resolved.loss == "none" else f"{resolved.loss} loss"
    if resolved.loss in METRIC and resolved.learns_hash:
        how += f" + {resolved.w_ce:g} × cross-entropy"
    classes, each = resolved.batch_shape
    batches = f"batches of {classes} × {each}"
    if len(selections) > 1:
        batches += " of each task"
    train, val = (
        sum(len(getattr(s, part)) for s in selections.values()) for part in ("train", "val")
    )
    console.message(
        f"would train on {train} images and judge by {val} "
        f"(splits {'none' if choice.nothing else made}): {how}, {resolved.head_epochs} epochs for "
        f"the new layers, {resolved.epochs} for all, {batches}."
    )


def show_result(
    result: TrainingResult, output: Path, failed: Sequence[Problem], style: str
) -> None:
    """The encoder made, on stdout; inputs that failed, in NDJSON beside it."""
    row: dict[str, Any] = {"encoder": str(output)}
    row |= {name: result.training.get(name) for name in ("loss", "backbone", "bits")}
    names = ("train_images", "validation_images", "unreadable_images", "best_epoch")
    row |= {name: result.training.get(name) for name in names}
    row |= {("training_loss" if key == "loss" else key): v for key, v in result.metrics.items()}
    row |= {"seconds": round(result.seconds, 1), "skipped": result.skipped}
    row |= {"fingerprint": result.fingerprint}
    if style == "ndjson":
        for problem in failed:
            console.write_ndjson({"input": problem.name, "error": problem.error})
    console.write_rows([row], _COLUMNS, style, title="Encoder")
    if failed:
        console.message(f"{len(failed)} inputs could not be used; the rest is done.")
