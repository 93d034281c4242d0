"""Who trains, who says when to stop, and who is judged: parts by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchknn.datasets.splits import deal_patients
from patchknn.errors import InputError
from patchknn.training.selection import TRAINING_NAMES, VALIDATION_NAMES
from patchknn.wholeslide.learning.cases import Cohort

# Of the patients that may train so many say when to stop.
_STOPPING_SHARE = 0.15


@dataclass(frozen=True)
class Fold:
    """Numbers of the slides that train, that tell when to stop, and that are judged."""

    name: str
    train: tuple[int, ...]
    stop: tuple[int, ...]
    judged: tuple[int, ...]


def cross_validation(cohort: Cohort, folds: int, seed: int) -> list[Fold]:
    """Each patient is judged once, by a model that saw none of the patient's slides.

    Raises InputError where there are fewer patients than folds.
    """
    owners = [case.patient for case in cohort.cases]
    if len(set(owners)) < folds:
        message = (
            f"{len(set(owners))} patients are too few for {folds} folds: give a smaller --folds."
        )
        raise InputError(message)
    strata = cohort.task.strata(cohort.targets)
    part = deal_patients(owners, strata, [1] * folds, seed)
    result = []
    for number in range(folds):
        judged = [i for i, own in enumerate(part) if own == number]
        rest = [i for i, own in enumerate(part) if own != number]
        train, stop = _with_stopping(cohort, rest, seed + number)
        result.append(Fold(f"fold {number + 1}", train, stop, tuple(judged)))
    return result


def all_slides(cohort: Cohort) -> Fold:
    """Every slide trains and none is judged, for the model that is kept after folds."""
    return Fold("all slides", tuple(range(len(cohort.cases))), (), ())


def without_judging(cohort: Cohort, seed: int) -> Fold:
    """Every slide trains, or tells when to stop."""
    numbers = range(len(cohort.cases))
    return Fold("all slides", *_with_stopping(cohort, numbers, seed), ())


def given_split(cohort: Cohort, seed: int) -> Fold:
    """The table's own ``split``: training slides, validation slides to stop by, others are judged.

    Where none is for validation, a part of the training patients is. Raises InputError without a
    training slide.
    """
    splits = [case.split for case in cohort.cases]
    train = [i for i, split in enumerate(splits) if split in TRAINING_NAMES]
    stop = [i for i, split in enumerate(splits) if split in VALIDATION_NAMES]
    judged = [
        i for i, s in enumerate(splits) if s not in (None, *TRAINING_NAMES, *VALIDATION_NAMES)
    ]
    if not train:
        there = ", ".join(sorted({split for split in splits if split})) or "none"
        message = f"No slide with a grid has the split 'train'; the table has {there}."
        raise InputError(message)
    _keep_patients_apart(cohort, [*train, *stop], judged)
    if stop:
        return Fold("training", tuple(train), tuple(stop), tuple(judged))
    return Fold("training", *_with_stopping(cohort, train, seed), tuple(judged))


def _with_stopping(
    cohort: Cohort, numbers: Sequence[int], seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    owners = [cohort.cases[i].patient for i in numbers]
    if len(set(owners)) < 2:
        return tuple(numbers), ()
    strata = cohort.task.strata(cohort.targets[np.asarray(numbers)])
    part = deal_patients(owners, strata, [1 - _STOPPING_SHARE, _STOPPING_SHARE], seed)
    both = tuple(
        tuple(i for i, own in zip(numbers, part, strict=True) if own == side) for side in (0, 1)
    )
    return both[0], both[1]


def _keep_patients_apart(cohort: Cohort, train: Sequence[int], judged: Sequence[int]) -> None:
    known = {cohort.cases[i].patient for i in train}
    both = sorted({cohort.cases[i].patient for i in judged} & known)
    if both:
        message = (
            f"Patient {both[0]} has slides to train on and slides to be judged: "
            "give all slides of a patient one split."
        )
        raise InputError(message)
