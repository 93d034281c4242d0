"""Splits by patient: no patient on both sides, classes spread as evenly as patients allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from patchknn.datasets.patches import Patch
from patchknn.errors import UsageError

SPLIT_NAMES = ("train", "val", "test")


def parse_fractions(text: str) -> tuple[float, ...]:
    """``70/15/15`` → its two or three shares; UsageError for anything else."""
    try:
        fractions = tuple(float(part) for part in text.split("/"))
    except ValueError:
        fractions = ()
    if len(fractions) not in {2, 3} or not all(0 <= share < math.inf for share in fractions):
        message = f"--split {text} is not TRAIN/VAL or TRAIN/VAL/TEST, such as 70/15/15."
        raise UsageError(message)
    return fractions


def split_by_patient(patches: Sequence[Patch], fractions: Sequence[float], seed: int) -> list[str]:
    """A split name per patch: ``train``, ``val`` and, with three fractions, ``test``.

    ``fractions`` are shares in any unit (0.7, 0.15, 0.15 or 70, 15, 15). All patches of a patient
    share a split (an unknown patient counts as the source itself). Patients are dealt out the
    largest first, each to the split that is furthest below its share of the patient's classes;
    equals come in the order of ``seed``. Raises UsageError for impossible fractions.
    """
    if len(fractions) not in {2, 3} or min(fractions) < 0 or fractions[0] <= 0:
        message = (
            f"Split {'/'.join(f'{share:g}' for share in fractions)} is not of the form "
            "TRAIN/VAL or TRAIN/VAL/TEST, such as 70/15/15."
        )
        raise UsageError(message)
    owners = [patch.patient or patch.source for patch in patches]
    labels = [patch.label or "" for patch in patches]
    return [SPLIT_NAMES[number] for number in deal_patients(owners, labels, fractions, seed)]


def deal_patients(
    owners: Sequence[str], labels: Sequence[str], fractions: Sequence[float], seed: int
) -> list[int]:
    """The number of a part for each row, all rows of an owner in one, in shares of any unit.

    Owners are dealt out as ``split_by_patient`` says; each part gets one where there are enough.
    """
    patients, owner = _numbered(owners)
    classes, label = _numbered(labels)
    counts = np.zeros((len(patients), len(classes)))
    np.add.at(counts, (owner, label), 1)
    assigned = _deal(counts, np.asarray(fractions, float) / sum(fractions), seed)
    return [assigned[number] for number in owner]


def _deal(
    counts: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    shares: np.ndarray[tuple[int], np.dtype[np.float64]],
    seed: int,
) -> list[int]:
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    totals = counts.sum(axis=0)
    wanted = np.outer(shares, totals)
    given = np.zeros_like(wanted)
    members = np.zeros(len(shares), int)
    open_splits = np.flatnonzero(shares > 0)
    assigned = [0] * len(counts)
    for position, patient in enumerate(order):
        weights = counts[patient] / np.maximum(totals, 1)
        lacking = ((wanted - given) / np.maximum(wanted, 1e-9)) @ weights
        left = len(counts) - position
        empty = [s for s in open_splits if members[s] == 0]
        # With as many patients left as splits without one, each of these gets one.
        candidates = empty if empty and left <= len(empty) else list(open_splits)
        best = max(candidates, key=lambda s: (round(float(lacking[s]), 9), -s))
        given[best] += counts[patient]
        members[best] += 1
        assigned[patient] = int(best)
    return assigned


def _numbered(values: Sequence[str]) -> tuple[list[str], list[int]]:
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), indices
