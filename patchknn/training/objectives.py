"""A loss by its name on the command line, as one function of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from patchknn.encoder.network import EncoderOutput
from patchknn.losses.bank import FeatureBank
from patchknn.losses.cross_entropy import cross_entropy
from patchknn.losses.deep_knn import deep_knn
from patchknn.losses.multitask import MultitaskWeights, multitask
from patchknn.losses.terms import LossTerms
from patchknn.losses.triplet import triplet
from patchknn.training.context import Context
from patchknn.training.settings import METRIC, TrainingSettings
from patchknn.training.tasks import Task


class InBank(NamedTuple):
    """A bank to find neighbours in, and the numbers (B,) under which a batch's rows stand there."""

    bank: FeatureBank
    numbers: Tensor


class Rows(NamedTuple):
    """One task's part of a batch: its features, hash vectors and logits, labels (B,) from 0."""

    features: Tensor
    hash_vectors: Tensor
    logits: Tensor | None
    labels: Tensor
    class_weights: Tensor | None
    in_bank: InBank | None


Objective = Callable[[EncoderOutput, Tensor, InBank | None], LossTerms]
_TaskLoss = Callable[[Rows], LossTerms]


def make_objective(context: Context) -> Objective:
    """The loss of the settings: what the network gives for a batch, labels (B,) → terms.

    Labels count through all tasks. With several tasks it is the mean of theirs, weighted by
    ``task_weights``: neighbours and triplets are those of one task.
    """
    loss = _by_name(context.settings)
    tasks, settings = context.tasks, context.settings
    balances = [_class_weights(context, task) for task in tasks]
    weights = [settings.task_weights.get(task.name, 1.0) for task in tasks]

    def of_task(
        number: int, output: EncoderOutput, labels: Tensor, in_bank: InBank | None
    ) -> LossTerms:
        task = tasks[number]
        if len(tasks) > 1:
            rows = ((labels >= task.first) & (labels < task.last)).nonzero()[:, 0]
            output = EncoderOutput(
                output.features[rows],
                output.hash_vectors[rows],
                tuple(logits[rows] for logits in output.logits),
            )
            labels = labels[rows]
            in_bank = None if in_bank is None else _bank_of(task, in_bank, rows)
        logits = output.logits[number] if output.logits else None
        features, hash_vectors, _ = output
        return loss(
            Rows(features, hash_vectors, logits, labels - task.first, balances[number], in_bank)
        )

    def objective(output: EncoderOutput, labels: Tensor, in_bank: InBank | None) -> LossTerms:
        if len(tasks) == 1:
            return of_task(0, output, labels, in_bank)
        terms = [of_task(number, output, labels, in_bank) for number in range(len(tasks))]
        return _joined(terms, weights, [task.name for task in tasks])

    return objective


def _by_name(settings: TrainingSettings) -> _TaskLoss:
    """Multitask and cross-entropy act on hash vectors and logits, the others on features.

    Those on features may have a classification beside them, which acts on the logits.
    """
    w_ce = 1.0 if settings.w_ce is None else settings.w_ce
    weights = MultitaskWeights(settings.w_t, settings.w_c, settings.w_q, w_ce)

    def of_multitask(rows: Rows) -> LossTerms:
        return multitask(
            rows.hash_vectors,
            _logits(rows),
            rows.labels,
            weights=weights,
            gamma=settings.gamma,
            distance=settings.cauchy_distance,
            quantization=settings.quantization,
            class_weights=rows.class_weights,
            label_smoothing=settings.label_smoothing,
        )

    def classification(rows: Rows) -> Tensor:
        logits, smoothing = _logits(rows), settings.label_smoothing
        return cross_entropy(logits, rows.labels, rows.class_weights, smoothing)

    def of_cross_entropy(rows: Rows) -> LossTerms:
        total = classification(rows)
        return LossTerms(total, {"cross_entropy": total.detach()})

    def of_deep_knn(rows: Rows) -> LossTerms:
        bank, numbers = rows.in_bank or (None, None)
        return deep_knn(
            rows.features,
            rows.labels,
            alpha=settings.alpha if settings.alpha is not None else 2.0,
            positives=settings.positives,
            negatives=settings.negatives,
            bank=bank,
            numbers=numbers,
        )

    def of_triplet(rows: Rows) -> LossTerms:
        return triplet(rows.features, rows.labels, mining=settings.mining, margin=settings.margin)

    by_name: dict[str, _TaskLoss] = {
        "multitask": of_multitask,
        "cross-entropy": of_cross_entropy,
        "deep-knn": of_deep_knn,
        "triplet": of_triplet,
    }
    loss = by_name[settings.loss]

    def with_classification(rows: Rows) -> LossTerms:
        metric, classified = loss(rows), classification(rows)
        return replace(
            metric,
            total=metric.total + w_ce * classified,
            parts={**metric.parts, "cross_entropy": classified.detach()},
        )

    return with_classification if settings.loss in METRIC and settings.learns_hash else loss


def _class_weights(context: Context, task: Task) -> Tensor | None:
    """Weights inverse to the classes' numbers of training images, 1 in the mean over images."""
    if context.settings.class_weights == "none":
        return None
    labels = context.labels[context.of_task(task, context.train_numbers)] - task.first
    counts = np.bincount(labels, minlength=len(task.class_names)).astype(np.float32)
    weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights).to(context.device)


def _bank_of(task: Task, in_bank: InBank, rows: Tensor) -> InBank:
    bank = in_bank.bank
    own = ((bank.labels >= task.first) & (bank.labels < task.last)).nonzero()[:, 0]
    kept = FeatureBank(bank.features[own], bank.labels[own] - task.first, bank.numbers[own])
    return InBank(kept, in_bank.numbers[rows])


def _joined(terms: list[LossTerms], weights: list[float], names: list[str]) -> LossTerms:
    total = sum(w * term.total for w, term in zip(weights, terms, strict=True)) / sum(weights)
    parts = {
        f"{part}:{name}": value
        for name, term in zip(names, terms, strict=True)
        for part, value in term.parts.items()
    }
    counts: dict[str, Tensor] = {}
    for field in ("triplets", "active", "saturated"):
        known = [value for term in terms if (value := getattr(term, field)) is not None]
        if known:
            counts[field] = torch.stack(known).sum()
    assert isinstance(total, Tensor)
    return LossTerms(total, parts, **counts)


def _logits(rows: Rows) -> Tensor:
    if rows.logits is None:
        message = "this loss needs a network with a classifier"
        raise ValueError(message)
    return rows.logits
