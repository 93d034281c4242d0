"""Who trains, who says when to stop, and who is judged: parts by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchknn.datasets.splits import deal_patients
from patchknn.errors import InputError
from patchknn.training.selection import TEST_NAMES, TRAINING_NAMES, VALIDATION_NAMES
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

    Raises InputError where there are fewer patients than folds, or a fold could learn nothing.
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
        fold = Fold(f"fold {number + 1}", train, stop, tuple(judged))
        _check_teaches(cohort, fold, "give more --folds, or more slides")
        result.append(fold)
    return result


def all_slides(cohort: Cohort) -> Fold:
    """Every slide trains and none is judged, for the model that is kept after folds."""
    return Fold("all slides", tuple(range(len(cohort.cases))), (), ())


def without_judging(cohort: Cohort, seed: int) -> Fold:
    """Every slide trains, or tells when to stop; InputError where nothing is left to learn."""
    numbers = range(len(cohort.cases))
    fold = Fold("all slides", *_with_stopping(cohort, numbers, seed), ())
    _check_teaches(cohort, fold, "give more slides")
    return fold


def given_split(cohort: Cohort, seed: int) -> Fold:
    """The table's own ``split``: slides to train on, to stop by (val), and to be judged (test).

    Capitals do not count. Where none is for validation, a part of the training patients is. Raises
    InputError without a training slide, for a split of another name, or for a patient in two.
    """
    splits = [None if case.split is None else case.split.lower() for case in cohort.cases]
    _check_names([case.split for case in cohort.cases])
    train = [i for i, split in enumerate(splits) if split in TRAINING_NAMES]
    stop = [i for i, split in enumerate(splits) if split in VALIDATION_NAMES]
    judged = [i for i, split in enumerate(splits) if split in TEST_NAMES]
    if not train:
        there = ", ".join(sorted({split for split in splits if split})) or "none"
        message = f"No slide with a grid has the split 'train'; the table has {there}."
        raise InputError(message)
    _keep_patients_apart(cohort, [*train, *stop], judged, "to be judged")
    _keep_patients_apart(cohort, train, stop, "to stop by")
    sides = (tuple(train), tuple(stop)) if stop else _with_stopping(cohort, train, seed)
    fold = Fold("training", *sides, tuple(judged))
    _check_teaches(cohort, fold, "give more slides the split 'train'")
    return fold


def without_split(cohort: Cohort) -> int:
    """How many slides ``given_split`` leaves out, as the table gives them none."""
    return sum(case.split is None for case in cohort.cases)


def _check_names(splits: Sequence[str | None]) -> None:
    known = (*TRAINING_NAMES, *VALIDATION_NAMES, *TEST_NAMES)
    unknown = sorted({split for split in splits if split and split.lower() not in known})
    if unknown:
        message = (
            f"{unknown[0]!r} is no split that --own-split knows: call them train, val and test."
        )
        raise InputError(message)


def _check_teaches(cohort: Cohort, fold: Fold, remedy: str) -> None:
    lacking = cohort.task.lacking(cohort.targets[list(fold.train)])
    if lacking is not None:
        many = f"{len(fold.train)} slides to train on"
        message = f"In {fold.name} nothing can be learnt, of its {many} {lacking}: {remedy}."
        raise InputError(message)


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
    lacking = cohort.task.lacking(cohort.targets[list(both[0])])
    # Of very few slides none can be spared: all train, and the last epoch is kept.
    return (
        (tuple(numbers), ()) if lacking or 2 * len(both[0]) < len(numbers) else (both[0], both[1])
    )


def _keep_patients_apart(
    cohort: Cohort, train: Sequence[int], others: Sequence[int], what_for: str
) -> None:
    known = {cohort.cases[i].patient for i in train}
    both = sorted({cohort.cases[i].patient for i in others} & known)
    if both:
        message = (
            f"Patient {both[0]} has slides to train on and slides {what_for}: "
            "give all slides of a patient one split."
        )
        raise InputError(message)
