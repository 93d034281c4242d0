"""Train an encoder from labelled patches, from the first image to the bundle on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchknn.datasets.patches import Patch, Problem
from patchknn.encoder.backbones import Backbone, create_backbone
from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder
from patchknn.errors import UsageError
from patchknn.training.checkpoint import partial_folder
from patchknn.training.codes import fit_codes, fit_probe
from patchknn.training.context import Context
from patchknn.training.extraction import extract_features
from patchknn.training.identity import finished_run, run_digest, write_run_record
from patchknn.training.images import ImageStore, Progress
from patchknn.training.judging import Judge
from patchknn.training.log import LOG_FILE, NOT_METRICS, write_log
from patchknn.training.phases import Phases
from patchknn.training.selection import Selection, SplitChoice, select, write_splits
from patchknn.training.settings import TrainingSettings
from patchknn.training.stopping import StopRequest

# ITQ and the probe do not get better with more.
_MAX_FIT_ROWS = 50_000


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: the bundle's fingerprint, its figures, and the images left out.

    ``seconds`` of work count over all its starts; ``skipped`` is True where the same encoder was
    there already.
    """

    fingerprint: str
    metrics: dict[str, Any]
    training: dict[str, Any]
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0
    skipped: bool = False


def _silently(items: Iterable[Any], **_: object) -> Iterator[Any]:
    return iter(items)


def train_encoder(
    patches: Sequence[Patch],
    settings: TrainingSettings,
    output: Path,
    report: Callable[[str], None],
    *,
    choice: SplitChoice | None = None,
    validation: Sequence[Patch] | None = None,
    progress: Progress = _silently,
) -> TrainingResult:
    """Train on patches and write the encoder bundle ``output``.

    ``validation`` are patches to judge epochs by instead of a split of ``patches``. A run that
    was stopped goes on from ``<output>.partial``, bit for bit the same in one CPU process; one
    that is finished is not done again. ``report`` gets a line per epoch and per unreadable
    image, ``progress(items, total=, label=)`` may draw a bar. Raises UsageError, InputError,
    ConflictError, StoppedError, and PatchknnError where the loss is no longer a number.
    """
    selection = select_patches(patches, settings, choice, validation)
    settings = settings.resolved(len(selection.class_names))
    device = choose_device(settings.device)
    precision = _precision(settings.precision, device)
    digest = run_digest(settings, selection, precision)
    done = finished_run(output, digest)
    if done is not None:
        report(f"{output} is already trained with these settings on these images.")
        return TrainingResult(done["fingerprint"], done["metrics"], done["training"], skipped=True)
    for remark in selection.remarks:
        report(f"warning: {remark}")
    limit_threads()
    cuda = [device] if device.type == "cuda" else []
    with StopRequest() as stop, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(settings.seed % 2**63)
        backbone = _backbone(settings)
        report(_summary(selection))
        if selection.assigned:
            write_splits(splits_file(output), selection.assigned)
            report(f"splits written to {splits_file(output)}")
        context = _context(
            selection, backbone, settings, (device, precision), (report, progress, stop.check)
        )
        context.store.load(progress, stop.check)
        return _train(context, selection, backbone, output, digest)


def select_patches(
    patches: Sequence[Patch],
    settings: TrainingSettings,
    choice: SplitChoice | None = None,
    validation: Sequence[Patch] | None = None,
) -> Selection:
    """Which patches train and which judge; see ``select``. Without training all rows are used."""
    needs_labels = settings.loss != "none"
    if validation is not None:
        patches = [replace(patch, split="train") for patch in patches]
        patches += [replace(patch, split="val") for patch in validation]
    elif not needs_labels and (choice is None or choice == SplitChoice()):
        choice = SplitChoice(nothing=True)
    return select(patches, choice or SplitChoice(), seed=settings.seed, needs_labels=needs_labels)


def splits_file(output: Path) -> Path:
    """Where the splits that a run made are written: ``<ENCODER>.splits.csv``."""
    return output.with_name(f"{output.name}.splits.csv")


def _backbone(settings: TrainingSettings) -> Backbone:
    return create_backbone(
        settings.backbone,
        input_size=settings.size,
        pretrained=settings.pretrained,
        weights=settings.weights,
        model_args=dict(settings.model_args),
        mean=settings.mean,
        std=settings.std,
    )


def _context(
    selection: Selection,
    backbone: Backbone,
    settings: TrainingSettings,
    where: tuple[torch.device, str],
    hooks: tuple[Callable[[str], None], Progress, Callable[[], None]],
) -> Context:
    report, progress, check = hooks
    device, precision = where
    patches = [*selection.train, *selection.val]
    n_classes = len(selection.class_names)
    network = EncoderNetwork(
        backbone.module, backbone.feature_dim, settings.bits, n_classes if n_classes > 1 else 0
    )
    return Context(
        network=network.to(device),
        store=ImageStore(
            patches,
            settings.size,
            settings.mpp,
            default_mpp=settings.default_mpp,
            workers=settings.workers,
            cache_bytes=settings.cache_bytes,
            on_problem=lambda problem: report(problem.error),
        ),
        labels=np.asarray(selection.labels(patches), np.int64),
        n_train=len(selection.train),
        n_classes=n_classes,
        mean=backbone.mean,
        std=backbone.std,
        settings=settings,
        device=device,
        precision=precision,
        report=report,
        progress=progress,
        check=check,
    )


def _train(
    context: Context, selection: Selection, backbone: Backbone, output: Path, digest: str
) -> TrainingResult:
    started = time.monotonic()
    settings, network = context.settings, context.network
    judge = Judge.choose(context)
    phases = Phases(context, judge, partial_folder(output), digest)
    if settings.loss != "none":
        phases.run()
    metrics = {name: v for name, v in phases.best_row.items() if name not in NOT_METRICS}
    classifier = "trained"
    if not settings.learns_hash:
        classifier, figures = _fit_heads(context, judge)
        metrics |= figures
    training = {
        **settings.as_json(),
        "train_precision": context.precision,
        "train_images": context.n_train,
        "validation_images": len(context.validation_numbers),
        "unreadable_images": len(context.store.problems),
        "class_counts": selection.class_counts(),
        "best_epoch": phases.best_epoch,
        "classifier": classifier,
        "torch": torch.__version__,
    }
    context.check()
    fingerprint = save_encoder(
        output,
        network,
        backbone,
        input_size=settings.size,
        bits=settings.bits,
        class_names=selection.class_names if network.classifier is not None else (),
        hash_method="learned" if settings.learns_hash else "itq",
        training=training,
        metrics=metrics,
        mpp=settings.mpp,
    )
    if phases.rows:
        write_log(output / LOG_FILE, phases.rows)
    seconds = max(phases.seconds, time.monotonic() - started)
    write_run_record(output, digest, seconds)
    shutil.rmtree(partial_folder(output), ignore_errors=True)
    return TrainingResult(fingerprint, metrics, training, tuple(context.store.problems), seconds)


def _fit_heads(context: Context, judge: Judge) -> tuple[str, dict[str, float]]:
    """Codes by ITQ and a probe on the finished features; what the classifier is, the figures."""
    numbers = context.train_numbers
    if len(numbers) > _MAX_FIT_ROWS:
        generator = np.random.default_rng([context.settings.seed, 2])
        numbers = sorted(generator.choice(numbers, _MAX_FIT_ROWS, replace=False).tolist())
    features, found = extract_features(context, numbers, "fitting codes")
    fit_codes(context.network, features, context.settings.seed)
    labels = context.labels[found]
    labelled = labels >= 0
    classifier = "none"
    if context.network.classifier is not None and labelled.any():
        fit_probe(context.network, features[labelled], labels[labelled])
        classifier = "linear probe on hash vectors"
    return classifier, judge.figures(context, features, found)


def _precision(name: str | None, device: torch.device) -> str:
    if name is None:
        if device.type != "cuda":
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if name == "float16" and device.type != "cuda":
        message = "--precision float16 needs a GPU; use bfloat16 or float32."
        raise UsageError(message)
    return name


def _summary(selection: Selection) -> str:
    known = selection.class_counts()
    counts = ", ".join(f"{name} {count}" for name, count in known.items())
    unlabelled = len(selection.train) - sum(known.values())
    if counts and unlabelled:
        counts += f", unlabelled {unlabelled}"
    classes = f" ({counts})" if counts else ""
    return (
        f"{len(selection.train)} training images{classes}, {len(selection.val)} validation images"
    )
