"""A number for each slide: squared error; Spearman's correlation and the mean squared error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from patchknn.figures.correlation import spearman
from patchknn.losses.squared_error import squared_error
from patchknn.wholeslide.tasks.task import Floats, Ints

_STRATA = 5


@dataclass(frozen=True)
class Regression:
    """Numbers of the table's ``column``; a target is (1,), an output (value − centre) / spread."""

    column: str
    centre: float = 0.0
    spread: float = 1.0

    kind = "regression"
    outputs = 1

    def fitted(self, targets: Floats) -> Regression:
        """With mean and standard deviation of the training slides, so that rates suit any unit."""
        spread = float(targets.std()) if len(targets) else 1.0
        centre = float(targets.mean()) if len(targets) else 0.0
        return replace(self, centre=centre, spread=spread if spread > 0 else 1.0)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (B, 1), targets (B, 1) → scalar, in units of the spread, squared."""
        return squared_error(outputs[:, 0], (targets[:, 0] - self.centre) / self.spread)

    def scores(self, outputs: Floats) -> Floats:
        """Values (n, 1) in the unit of the column."""
        return np.asarray(outputs * self.spread + self.centre)

    def strata(self, targets: Floats) -> list[str]:
        """A fifth of the slides each, by value."""
        inner = np.quantile(targets[:, 0], np.arange(1, _STRATA) / _STRATA)
        return [str(number) for number in np.searchsorted(inner, targets[:, 0], side="right")]

    def lacking(self, targets: Floats) -> str | None:
        """That they do not differ."""
        return f"all have one {self.column}" if len(np.unique(targets[:, 0])) == 1 else None

    def figures(
        self,
        scores: Floats,
        targets: Floats,
        folds: Ints,  # noqa: ARG002  (all values have one unit)
    ) -> dict[str, float | None]:
        """``spearman`` and ``mse``; ``mse_of_mean`` is what the mean of all targets would give."""
        if not len(scores):
            return {"spearman": None, "mse": None, "mse_of_mean": None}
        return {
            "spearman": spearman(scores[:, 0], targets[:, 0]),
            "mse": float(np.mean((scores[:, 0] - targets[:, 0]) ** 2)),
            "mse_of_mean": float(targets[:, 0].var()),
        }

    def known(self, target: Floats) -> dict[str, Any]:
        """The value."""
        return {"value": float(target[0])}

    def answer(self, score: Floats) -> dict[str, Any]:
        """The value predicted."""
        return {"prediction": float(score[0])}

    def as_json(self) -> dict[str, Any]:
        """Its kind, column, centre and spread."""
        return {
            "kind": self.kind,
            "column": self.column,
            "centre": self.centre,
            "spread": self.spread,
        }
