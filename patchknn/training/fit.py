"""Train an encoder from labelled patches, from the first image to the bundle on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.stored import StoredFeatures
from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.errors import UsageError
from patchknn.training.assembly import Parts, assemble
from patchknn.training.checkpoint import partial_folder
from patchknn.training.context import Context
from patchknn.training.defaults import resolve
from patchknn.training.finishing import finish
from patchknn.training.identity import finished_run, run_digest, write_run_record
from patchknn.training.inputs import Progress
from patchknn.training.judging import Judge
from patchknn.training.log import LOG_FILE, write_log
from patchknn.training.phases import Phases
from patchknn.training.ranks import Ranks, choose_precision, join_ranks
from patchknn.training.selection import Selection, SplitChoice, select, write_splits
from patchknn.training.settings import TrainingSettings
from patchknn.training.stopping import StopRequest
from patchknn.training.tasks import ONLY_TASK, join


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
    patches: Sequence[Patch] | Mapping[str, Sequence[Patch]],
    settings: TrainingSettings,
    output: Path,
    report: Callable[[str], None],
    *,
    choice: SplitChoice | None = None,
    validation: Sequence[Patch] | None = None,
    stored: StoredFeatures | None = None,
    progress: Progress = _silently,
) -> TrainingResult:
    """Train on patches and write the encoder bundle ``output``.

    ``patches`` are one data set, or several by the names of their tasks; ``validation`` are
    patches to judge epochs by instead of a split of ``patches``; ``stored`` holds the features of
    patches that are rows of it. A run that was stopped goes on from ``<output>.partial``, bit for
    bit the same in one CPU process; one that is finished is not done again. ``report`` gets a
    line per epoch and per unreadable image, ``progress(items, total=, label=)`` may draw a bar.
    Under torchrun or srun every process calls this, and the first one reports and writes. Raises
    UsageError, InputError, ConflictError, StoppedError, and PatchknnError where the loss is no
    longer a number.
    """
    selections = select_patches(patches, settings, choice, validation)
    settings = resolve_for(settings, selections)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    digest = run_digest(settings, selections, precision)
    limit_threads()
    cuda = [device] if device.type == "cuda" else []
    with StopRequest() as stop, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(settings.seed % 2**63)
        ranks = join_ranks(device, precision)
        done = finished_run(output, digest)
        if ranks.as_first(done is not None):  # not every node need see the first one's disk
            report(f"{output} is already trained with these settings on these images.")
            return _as_before(done or {})
        for selection in selections.values():
            for remark in selection.remarks:
                report(f"warning: {remark}")
        parts = assemble(join(selections), settings, stored)
        report(_summary(selections))
        if ranks.first:
            _write_splits(output, selections, report)
        context = _context(parts, precision, ranks, stop, (report, progress))
        context.inputs.load(context.progress, context.check)
        return _train(context, parts, output, digest)


def _as_before(known: Mapping[str, Any]) -> TrainingResult:
    return TrainingResult(
        known.get("fingerprint", ""),
        known.get("metrics", {}),
        known.get("training", {}),
        skipped=True,
    )


def resolve_for(
    settings: TrainingSettings, selections: Mapping[str, Selection]
) -> TrainingSettings:
    """The settings with every default filled in for what is trained on; raises UsageError."""
    classes = [len(selection.class_names) for selection in selections.values()]
    return resolve(settings, classes, sum(len(s.train) for s in selections.values()))


def select_patches(
    patches: Sequence[Patch] | Mapping[str, Sequence[Patch]],
    settings: TrainingSettings,
    choice: SplitChoice | None = None,
    validation: Sequence[Patch] | None = None,
) -> dict[str, Selection]:
    """Which patches train and which judge, by task; see ``select``.

    Without training all rows are used.
    """
    needs_labels = settings.loss != "none"
    several = patches if isinstance(patches, Mapping) else {ONLY_TASK: patches}
    if validation is not None:
        if len(several) > 1:
            message = "--validation gives the images of one task; with --task use --split."
            raise UsageError(message)
        (name,) = several
        together = [replace(patch, split="train") for patch in several[name]]
        several = {name: together + [replace(patch, split="val") for patch in validation]}
    elif not needs_labels and (choice is None or choice == SplitChoice()):
        choice = SplitChoice(nothing=True)
    choice = choice or SplitChoice()
    return {
        name: select(members, choice, seed=settings.seed, needs_labels=needs_labels)
        for name, members in several.items()
    }


def splits_file(output: Path, task: str = ONLY_TASK) -> Path:
    """Where the splits that a run made are written: ``<ENCODER>.splits.csv``.

    With several tasks a file each, ``<ENCODER>.<TASK>.splits.csv``.
    """
    middle = "" if task == ONLY_TASK else f".{task}"
    return output.with_name(f"{output.name}{middle}.splits.csv")


def _write_splits(
    output: Path, selections: Mapping[str, Selection], report: Callable[[str], None]
) -> None:
    for name, selection in selections.items():
        if selection.assigned:
            file = splits_file(output, name)
            write_splits(file, selection.assigned)
            report(f"splits written to {file}")


def _context(
    parts: Parts,
    precision: str,
    ranks: Ranks,
    stop: StopRequest,
    hooks: tuple[Callable[[str], None], Progress],
) -> Context:
    report, progress = hooks
    device = ranks.fabric.device

    inputs = parts.make_inputs(lambda problem: report(problem.error))
    shared = 0  # unreadable inputs that all processes know of

    def check() -> None:
        # One of several must not stop alone: the others would wait for it.
        nonlocal shared
        if ranks.any(stop.asked or len(inputs.unreadable) > shared):
            inputs.leave_out(ranks.gather_reasons(inputs.unreadable))
            shared = len(inputs.unreadable)
            inputs.check_number()
            if ranks.any(stop.asked):
                stop.end()

    return Context(
        network=parts.network.to(device),
        inputs=inputs,
        labels=parts.lesson.labels,
        n_train=parts.lesson.n_train,
        tasks=parts.lesson.tasks,
        settings=parts.settings,
        device=device,
        precision=precision,
        ranks=ranks,
        report=report if ranks.first else lambda _: None,
        progress=progress if ranks.first else _silently,
        check=check,
    )


def _train(context: Context, parts: Parts, output: Path, digest: str) -> TrainingResult:
    started = time.monotonic()
    judge = Judge.choose(context)
    phases = Phases(context, judge, partial_folder(output), digest)
    if context.settings.loss != "none":
        phases.run()
    context.ranks.wait()
    fingerprint, metrics, training = finish(context, parts, judge, phases, output)
    seconds = max(phases.seconds, time.monotonic() - started)
    if context.ranks.first:
        if phases.best.rows:
            write_log(output / LOG_FILE, phases.best.rows)
        write_run_record(output, digest, seconds)
        shutil.rmtree(partial_folder(output), ignore_errors=True)
    context.ranks.wait()
    return TrainingResult(fingerprint, metrics, training, tuple(context.inputs.problems), seconds)


def _summary(selections: Mapping[str, Selection]) -> str:
    lines = [_of_one(selection) for selection in selections.values()]
    if len(lines) == 1:
        return lines[0]
    return "\n".join(f"{name}: {line}" for name, line in zip(selections, lines, strict=True))


def _of_one(selection: Selection) -> str:
    known = selection.class_counts()
    counts = ", ".join(f"{name} {count}" for name, count in known.items())
    unlabelled = len(selection.train) - sum(known.values())
    if counts and unlabelled:
        counts += f", unlabelled {unlabelled}"
    classes = f" ({counts})" if counts else ""
    return (
        f"{len(selection.train)} training images{classes}, {len(selection.val)} validation images"
    )
