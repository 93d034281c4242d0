"""What a ``train`` line names, read: patches by task, those to judge by, or stored features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchknn.cli import console
from patchknn.errors import InputError, UsageError

if TYPE_CHECKING:
    from patchknn.datasets.patches import Patch, Problem
    from patchknn.datasets.stored import StoredFeatures
    from patchknn.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingData:
    """Patches by task, those to judge by, and inputs that could not be used.

    ``settings`` are those given, with the µm/px at which slides are read.
    """

    patches: Mapping[str, Sequence[Patch]]
    validation: Sequence[Patch] | None
    problems: list[Problem]
    settings: TrainingSettings
    stored: StoredFeatures | None = None


def read_data(
    settings: TrainingSettings,
    reading: Mapping[str, Any],
    data: Sequence[str],
    tasks: Sequence[str],
    validation: Sequence[str],
    labels: Path | None,
) -> TrainingData:
    """List everything that is named, bad inputs on stderr; raises UsageError and InputError."""
    by_task = _by_task(list(_expanded(data)), tasks, settings)
    if settings.features:
        if validation or len(by_task) > 1:
            message = (
                "--features takes one data set: leave --task and --validation away; use --split."
            )
            raise UsageError(message)
        return _stored(settings, next(iter(by_task.values())), labels)
    from patchknn.datasets.listing import choose_mpp

    named = [name for members in by_task.values() for name in members]
    mpp = choose_mpp([*named, *validation], settings.mpp)
    reading = {**reading, "size": settings.size, "mpp": mpp}
    problems: list[Problem] = []
    patches = {task: _listed(members, reading, problems) for task, members in by_task.items()}
    held_out = _listed(validation, reading, problems) if validation else None
    everything = [p for members in patches.values() for p in members]
    if not everything and problems:
        message = f"There is nothing to train on: {problems[0].error}"
        raise InputError(message)
    # Squares of slides are read at a µm/px, plain images as they are unless one is asked for.
    if settings.mpp is None and any(p.kind == "slide" for p in [*everything, *(held_out or [])]):
        settings = replace(settings, mpp=mpp)
    return TrainingData(patches, held_out, problems, settings)


def _by_task(
    data: Sequence[str], tasks: Sequence[str], settings: TrainingSettings
) -> dict[str, list[str]]:
    from patchknn.training.tasks import ONLY_TASK

    if bool(data) == bool(tasks):
        message = "Give DATA to train on, or --task NAME=DATA for each of several data sets."
        raise UsageError(message)
    if data:
        if settings.task_weights:
            message = "--task-weight belongs to --task NAME=DATA."
            raise UsageError(message)
        return {ONLY_TASK: list(data)}
    by_task: dict[str, list[str]] = {}
    for text in tasks:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or "/" in name:
            message = f"--task {text} is not of the form NAME=DATA."
            raise UsageError(message)
        by_task.setdefault(name, []).append(path)
    strange = [name for name in settings.task_weights if name not in by_task]
    if strange:
        message = f"--task-weight {strange[0]}: there is no such task, only {', '.join(by_task)}."
        raise UsageError(message)
    return by_task


def _listed(
    arguments: Iterable[str], reading: Mapping[str, Any], problems: list[Problem]
) -> list[Patch]:
    from patchknn.datasets.listing import iter_patches
    from patchknn.datasets.patches import Problem
    from patchknn.training.ranks import first_started

    patches = []
    for item in iter_patches(arguments, **reading):
        if isinstance(item, Problem):
            if first_started():
                console.message(item.error)
            problems.append(item)
        else:
            patches.append(item)
    return patches


def _stored(settings: TrainingSettings, data: Sequence[str], labels: Path | None) -> TrainingData:
    from patchknn.training.ranks import first_started
    from patchknn.training.stored import origin_encoder, read_stored, stored_patches
    from patchknn.training.tasks import ONLY_TASK

    stored = read_stored(data, labels)
    for problem in stored.problems:
        if first_started():
            console.message(problem.error)
    averaged = max(origin.attributes.get("orientations", 1) for origin in stored.origins)
    if averaged > 1 and first_started():
        console.warn(
            f"these features are means over {averaged} orientations: embed with "
            f"--orientations {averaged} by what is trained here."
        )
    encoder = origin_encoder(stored)
    if encoder is not None:
        known = encoder.description
        settings = replace(settings, size=known.input_size, crop=known.crop, mpp=known.mpp)
    patches = {ONLY_TASK: stored_patches(stored)}
    return TrainingData(patches, None, list(stored.problems), settings, stored)


def _expanded(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from console.stdin_lines()
        else:
            yield argument
