"""A risk for each slide, from censored times: Cox's partial likelihood and concordance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from patchknn.figures.concordance import concordance
from patchknn.losses.cox import cox_partial_likelihood
from patchknn.wholeslide.tasks.task import Floats, Ints

_STRATA = 3


@dataclass(frozen=True)
class Survival:
    """Columns ``time`` and ``event`` of the table; a target is (time, 1 or 0 for censored)."""

    time: str
    event: str

    kind = "survival"
    outputs = 1

    def fitted(self, targets: Floats) -> Survival:  # noqa: ARG002  (ranks need no scale)
        """The same: only the order of times counts."""
        return self

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (B, 1), targets (B, 2) → scalar; the risk sets are those of the batch."""
        return cox_partial_likelihood(outputs[:, 0], targets[:, 0], targets[:, 1] > 0)

    def scores(self, outputs: Floats) -> Floats:
        """Log hazards (n, 1), which have no zero: only differences mean something."""
        return outputs

    def strata(self, targets: Floats) -> list[str]:
        """With and without the event, a third of each by time."""
        edges = np.quantile(targets[:, 0], np.arange(1, _STRATA) / _STRATA)
        part = np.searchsorted(edges, targets[:, 0], side="right")
        return [f"{int(e)} {n}" for e, n in zip(targets[:, 1], part, strict=True)]

    def lacking(self, targets: Floats) -> str | None:
        """That no event was seen while another slide was still under observation."""
        times, seen = targets[:, 0], targets[:, 1] > 0
        at_risk = (times[None, :] >= times[seen, None]).sum(axis=1)
        return None if (at_risk > 1).any() else "none has the event while another is at risk"

    def figures(self, scores: Floats, targets: Floats, folds: Ints) -> dict[str, float | None]:
        """``concordance`` over pairs that one network scored."""
        seen = targets[:, 1] > 0
        return {"concordance": concordance(targets[:, 0], seen, scores[:, 0], folds)}

    def known(self, target: Floats) -> dict[str, Any]:
        """The time, and whether the event was seen then."""
        return {"time": float(target[0]), "event": int(target[1])}

    def answer(self, score: Floats) -> dict[str, Any]:
        """The risk, as a log hazard."""
        return {"prediction": float(score[0])}

    def as_json(self) -> dict[str, Any]:
        """Its kind and columns."""
        return {"kind": self.kind, "time": self.time, "event": self.event}
