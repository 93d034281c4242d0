"""The end of a run: heads that no loss trained, the last figures, and the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchknn.encoder.saving import save_encoder
from patchknn.training.assembly import Parts
from patchknn.training.codes import fit_codes, fit_probe
from patchknn.training.context import Context
from patchknn.training.extraction import extract_features
from patchknn.training.judging import Judge
from patchknn.training.log import NOT_METRICS
from patchknn.training.phases import Phases

# ITQ and the probe do not get better with more.
_MAX_FIT_ROWS = 50_000


def finish(
    context: Context, parts: Parts, judge: Judge, phases: Phases, output: Path
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Write the bundle; its fingerprint, the figures, and what it says of its training.

    Of several processes the first one writes; the others return an empty fingerprint.
    """
    settings = context.settings
    metrics = {name: v for name, v in phases.best.row.items() if name not in NOT_METRICS}
    classifier = "trained"
    if not settings.learns_hash:
        classifier, figures = _fit_heads(context, judge)
        metrics |= figures
    tasks = parts.lesson.tasks if len(context.network.classifiers) else ()
    network, backbone = parts.finished()
    training = {
        **settings.as_json(),
        "backbone": None if backbone is None else backbone.name,
        "train_precision": context.precision,
        "train_images": context.n_train,
        "validation_images": len(context.validation_numbers),
        "unreadable_images": len(context.inputs.problems),
        "class_counts": _class_counts(context),
        "best_epoch": phases.best.epoch,
        "classifier": classifier,
        "processes": context.ranks.count,
        "torch": torch.__version__,
    }
    context.check()
    if not context.ranks.first:
        return "", metrics, training
    fingerprint = save_encoder(
        output,
        network,
        backbone,
        input_size=settings.size,
        crop=settings.crop,
        bits=settings.bits,
        tasks={task.name: task.class_names for task in tasks},
        hash_method="learned" if settings.learns_hash else "itq",
        training=training,
        metrics=metrics,
        mpp=settings.mpp,
    )
    return fingerprint, metrics, training


def _fit_heads(context: Context, judge: Judge) -> tuple[str, dict[str, float]]:
    """Codes by ITQ and probes on the finished features; what the classifier is, the figures."""
    features, found = extract_features(context, _rows_to_fit(context), "fitting codes")
    fit_codes(context.network, features, context.settings.seed)
    labels = context.labels[found]
    kind = "none"
    for task, classifier in zip(context.tasks, context.network.task_layers, strict=False):
        own = (labels >= task.first) & (labels < task.last)
        if own.any():
            fit_probe(context.network, classifier, features[own], labels[own] - task.first)
            kind = "linear probe on hash vectors"
    return kind, judge.figures(context, features, found)


def _rows_to_fit(context: Context) -> list[int]:
    """Training inputs of every task, at most ``_MAX_FIT_ROWS`` in all: a small one is not lost."""
    generator = np.random.default_rng([context.settings.seed, 2])
    parts = [context.train_numbers]
    if len(context.tasks) > 1:
        parts = [context.of_task(task, context.train_numbers) for task in context.tasks]
    most = _MAX_FIT_ROWS // len(parts)
    return sorted(
        number
        for own in parts
        for number in (
            own if len(own) <= most else generator.choice(own, most, replace=False).tolist()
        )
    )


def _class_counts(context: Context) -> dict[str, Any]:
    """Training images per class; with several tasks, of each."""
    counts = {}
    for task in context.tasks:
        labels = context.labels[context.of_task(task, context.train_numbers)] - task.first
        found = np.bincount(labels, minlength=len(task.class_names)).tolist()
        counts[task.name] = dict(zip(task.class_names, found, strict=True))
    return next(iter(counts.values()), {}) if len(counts) < 2 else counts
