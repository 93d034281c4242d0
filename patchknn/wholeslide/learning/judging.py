"""Figures of slides that a network had not seen, and how sure they are: draws of patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patchknn.figures.resampling import dense_numbers, draws, middle
from patchknn.wholeslide.learning.cases import Cohort
from patchknn.wholeslide.tasks.task import Floats


@dataclass(frozen=True)
class Figure:
    """One figure; ``low`` and ``high`` hold the middle 95 % of it in draws of the patients."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Value and interval."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass
class Judged:
    """Slides that were judged, as numbers of a cohort, with the fold and the scores of each."""

    cohort: Cohort
    numbers: list[int] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)

    def add(self, numbers: Sequence[int], fold: int, scores: Floats) -> None:
        """Take what the network of a fold says (n, S) of the numbered slides."""
        self.numbers.extend(numbers)
        self.folds.extend([fold] * len(numbers))
        self.scores.extend(scores)

    def table(self) -> list[dict[str, Any]]:
        """A row for each slide: what is known of it, and what was said of it."""
        rows = []
        for number, fold, score in zip(self.numbers, self.folds, self.scores, strict=True):
            case, task = self.cohort.cases[number], self.cohort.task
            row: dict[str, Any] = {"slide": case.name, "patient": case.patient}
            row |= {"fold": fold} if fold else {"split": case.split}
            rows.append(row | task.known(self.cohort.targets[number]) | task.answer(score))
        return rows


def judged_figures(judged: Judged, replicates: int, seed: int) -> dict[str, Figure]:
    """The task's figures of the slides judged, with intervals; nothing where there are none.

    Patients are drawn with replacement ``replicates`` times (the cluster bootstrap), all slides
    of one together; a figure that a draw does not have, such as the area with one class, is left
    out of its interval.
    """
    if not judged.numbers:
        return {}
    cohort, scores = judged.cohort, np.stack(judged.scores)
    task, targets = cohort.task, cohort.targets[judged.numbers]
    folds = np.array(judged.folds, np.int64)
    found = task.figures(scores, targets, folds)
    owner = dense_numbers(np.array([cohort.cases[i].patient for i in judged.numbers]))
    n_patients = int(owner.max(initial=-1)) + 1
    drawn: dict[str, list[float]] = {name: [] for name in found}
    if n_patients > 1:
        numbers = np.arange(len(owner))
        for block in draws(n_patients, replicates, seed, len(owner)):
            for weights in block.astype(np.int64):
                rows = np.repeat(numbers, weights[owner])
                for name, value in task.figures(scores[rows], targets[rows], folds[rows]).items():
                    drawn[name].append(np.nan if value is None else value)
    figures = {}
    for name, value in found.items():
        interval = middle(np.array(drawn[name])) if value is not None and drawn[name] else None
        figures[name] = Figure(value, *(interval or (None, None)))
    return figures
