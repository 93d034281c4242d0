"""What all tasks have in common: a loss, scores, and figures of many slides."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Task(Protocol):
    """One question asked of slides.

    ``targets`` (n, T) float64 are what is known of slides, ``scores`` (n, S) float64 what the
    network says of them, in the units of the answer: scores of two networks can be put together.
    """

    @property
    def kind(self) -> str:
        """``classification``, ``regression`` or ``survival``."""
        ...

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for a slide."""
        ...

    def fitted(self, targets: Floats) -> Self:
        """The same with what it takes from the training slides' targets."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (B, O) float, targets (B, T) float → scalar."""
        ...

    def scores(self, outputs: Floats) -> Floats:
        """Outputs (n, O) as scores (n, S)."""
        ...

    def strata(self, targets: Floats) -> list[str]:
        """Names by which slides (n) are dealt out evenly to folds."""
        ...

    def lacking(self, targets: Floats) -> str | None:
        """Why nothing can be learnt from slides with these targets, in words; None where it can."""
        ...

    def figures(self, scores: Floats, targets: Floats, folds: Ints) -> dict[str, float | None]:
        """Figures of scored slides; ``folds`` (n,) numbers the network that scored each."""
        ...

    def known(self, target: Floats) -> dict[str, Any]:
        """What is known of one slide, from its target (T,), as columns of a table."""
        ...

    def answer(self, score: Floats) -> dict[str, Any]:
        """What is said of one slide, from its score (S,), as columns of a table."""
        ...

    def as_json(self) -> dict[str, Any]:
        """What makes the same task again, with its ``kind``."""
        ...
