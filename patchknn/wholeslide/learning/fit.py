"""Train a slide model, from the first grid to the directory on disk."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.files import quickhash, read_json
from patchknn.training.checkpoint import partial_folder
from patchknn.training.identity import RUN_FILE, wrote
from patchknn.training.inputs import Progress
from patchknn.training.ranks import choose_precision, join_ranks
from patchknn.training.stopping import StopRequest
from patchknn.wholeslide.learning.cases import Cohort
from patchknn.wholeslide.learning.folds import (
    Fold,
    cross_validation,
    given_split,
    without_judging,
    without_split,
)
from patchknn.wholeslide.learning.judging import Figure, judged_figures
from patchknn.wholeslide.learning.network_run import Run
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.learning.slide_model import DESCRIPTION_FILE, load_slide_model
from patchknn.wholeslide.learning.trainings import train_folds
from patchknn.wholeslide.learning.writing import slide_model, write_run


@dataclass(frozen=True)
class SlideTraining:
    """What a run gave: ``figures`` of slides that no model saw; ``skipped``: it was there."""

    fingerprint: str
    figures: Mapping[str, Figure]
    training: Mapping[str, Any]
    seconds: float = 0.0
    skipped: bool = False


def train_slide_model(
    cohort: Cohort,
    settings: SlideSettings,
    output: Path,
    report: Callable[[str], None],
    *,
    split: bool = False,
    progress: Progress | None = None,
) -> SlideTraining:
    """Cross-validate by patient, train on all slides, and write the slide model ``output``.

    With ``split`` the table's own splits are used instead; with ``settings.folds`` 0 nothing is
    judged. In ``output`` lie the model, those of the folds below ``folds/``, ``training.csv`` and
    ``predictions.csv``, what each judged slide was given by a model that saw no slide of its
    patient. After folds the kept model is trained on all slides for the median of their best
    epochs. A stopped run goes on from ``<output>.partial``, on one CPU bit for bit the same; one
    that is finished is not done again. Under torchrun or srun every process calls this, and the
    first one reports and writes. Raises UsageError, InputError, ConflictError, StoppedError, and
    PatchknnError where the loss is no longer a number.
    """
    settings = settings.resolved(len(cohort.cases), cohort.task.kind)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    settings = replace(settings, precision=precision)
    digest = _run_digest(cohort, settings, split=split)
    limit_threads()
    cuda = [device] if device.type == "cuda" else []
    with StopRequest() as stop, torch.random.fork_rng(devices=cuda):
        ranks = join_ranks(device, precision)
        report = report if ranks.first else _nothing
        done = wrote(output, digest, DESCRIPTION_FILE, "a slide model")
        if ranks.as_first(done):  # not every node need see the first one's disk
            report(
                f"{output} is already trained with these settings on these slides; its figures and "
                "intervals are from then."
            )
            return _as_before(output) if done else SlideTraining("", {}, {}, skipped=True)
        folds = plan_folds(cohort, settings, split=split)
        if (output / DESCRIPTION_FILE).exists():
            report(
                f"{output} is a slide model of other settings, slides or precision: this one, in "
                f"{precision}, takes its place."
            )
        if split and (left_out := without_split(cohort)):
            report(f"slides without a split: {left_out}; they are left out.")

        def check() -> None:
            # One of several must not stop alone: the others would wait for it.
            if ranks.any(stop.asked):
                stop.end()

        run = Run(
            ranks=ranks,
            precision=precision,
            folder=partial_folder(output),
            digest=digest,
            report=report,
            progress=progress if progress is not None and ranks.first else _silently,
            check=check,
        )
        return _train(cohort, settings, folds, run, output)


def _train(
    cohort: Cohort, settings: SlideSettings, folds: list[Fold], run: Run, output: Path
) -> SlideTraining:
    started = time.monotonic()
    trainings = train_folds(cohort, settings, folds, run, cross_validated=len(folds) > 1)
    kept, judged = trainings.kept, trainings.judged
    figures = judged_figures(judged, settings.bootstrap, settings.seed)
    training = {
        **settings.as_json(),
        "slides": len(cohort.cases),
        "patients": len({case.patient for case in cohort.cases}),
        "judged_slides": len(judged.numbers),
        "best_epoch": kept.best_epoch,
        "processes": run.ranks.count,
        "torch": torch.__version__,
    }
    seconds = max(trainings.seconds, time.monotonic() - started)
    fingerprint = ""
    if run.ranks.first:
        metrics = {name: figure.as_json() for name, figure in figures.items()}
        models = [slide_model(cohort, settings, kept, training, metrics)]
        models += [
            slide_model(cohort, settings, trained, settings.as_json(), {})
            for trained in trainings.of_folds
        ]
        rows = [row for trained in (*trainings.of_folds, kept) for row in trained.rows]
        fingerprint = write_run(output, models, rows, judged.table(), (run.digest, seconds))
        shutil.rmtree(run.folder, ignore_errors=True)
    run.ranks.wait()
    return SlideTraining(fingerprint, figures, training, seconds)


def plan_folds(cohort: Cohort, settings: SlideSettings, *, split: bool = False) -> list[Fold]:
    """Who trains, stops and is judged in each training before that on all slides.

    Raises InputError as ``cross_validation``, ``given_split`` and ``without_judging``.
    """
    if split:
        return [given_split(cohort, settings.seed)]
    if settings.folds == 0:
        return [without_judging(cohort, settings.seed)]
    return cross_validation(cohort, settings.folds, settings.seed)


def _silently(items: Iterable[Any], **_: object) -> Iterator[Any]:
    return iter(items)


def _nothing(_: str) -> None:
    """What the other processes of a run say."""


def _run_digest(cohort: Cohort, settings: SlideSettings, *, split: bool) -> str:
    """SHA-256 over all that can change the models: settings, slides, targets, grids."""
    digest = hashlib.sha256(f"{settings.digest()} {split}".encode())
    digest.update(repr(cohort.task.as_json()).encode())
    for case, target in zip(cohort.cases, cohort.targets.tolist(), strict=True):
        told = (case.name, case.patient, case.split, target)
        digest.update(repr(told).encode("utf-8", "surrogateescape"))
        for file in _files(case.path):
            digest.update(quickhash(file))
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]


def _as_before(output: Path) -> SlideTraining:
    model = load_slide_model(output)
    figures = {name: Figure(**entry) for name, entry in model.metrics.items()}
    seconds = float(read_json(output / RUN_FILE).get("seconds", 0.0))
    return SlideTraining(model.fingerprint, figures, model.training, seconds, skipped=True)
