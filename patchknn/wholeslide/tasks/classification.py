"""Slides in classes: cross-entropy; the area under the ROC curve, accuracy, mean recall."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from patchknn.figures.auroc import auroc_within
from patchknn.losses.cross_entropy import cross_entropy
from patchknn.wholeslide.tasks.task import Floats, Ints


@dataclass(frozen=True)
class Classification:
    """Classes of the table's ``column``; a target (1,) counts into ``classes``.

    ``balanced`` weighs classes inversely to how many training slides they have, by ``weights``.
    """

    column: str
    classes: tuple[str, ...]
    balanced: bool = False
    weights: tuple[float, ...] | None = None

    kind = "classification"

    @property
    def outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    def fitted(self, targets: Floats) -> Classification:
        """With the weights of the classes, 1 in the mean over slides, where they are balanced."""
        if not self.balanced:
            return self
        counts = np.bincount(targets[:, 0].astype(np.int64), minlength=len(self.classes))
        weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return replace(self, weights=tuple(weights.tolist()))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (B, C), targets (B, 1) → scalar."""
        weights = None if self.weights is None else outputs.new_tensor(self.weights)
        return cross_entropy(outputs, targets[:, 0].long(), weights)

    def scores(self, outputs: Floats) -> Floats:
        """Probabilities (n, C)."""
        exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def strata(self, targets: Floats) -> list[str]:
        """The classes."""
        return [self.classes[int(number)] for number in targets[:, 0]]

    def lacking(self, targets: Floats) -> str | None:
        """That all are of one class."""
        found = np.unique(targets[:, 0]).astype(np.int64).tolist()
        return f"all are {self.classes[found[0]]!r}" if len(found) == 1 else None

    def figures(self, scores: Floats, targets: Floats, folds: Ints) -> dict[str, float | None]:
        """``auc``, of more than two classes the mean of each against the rest; accuracy, recall.

        For the area only slides that one network scored are compared.
        """
        true, predicted = targets[:, 0].astype(np.int64), scores.argmax(axis=1)
        asked = [1] if len(self.classes) == 2 else range(len(self.classes))
        areas = [auroc_within(scores[:, c], true == c, folds) for c in asked]
        known = [area for area in areas if area is not None]
        right = true == predicted
        recalls = [right[true == c].mean() for c in np.unique(true).tolist()]
        return {
            "auc": float(np.mean(known)) if known else None,
            "accuracy": float(right.mean()) if len(right) else None,
            "mean_class_recall": float(np.mean(recalls)) if recalls else None,
        }

    def known(self, target: Floats) -> dict[str, Any]:
        """The class."""
        return {"label": self.classes[int(target[0])]}

    def answer(self, score: Floats) -> dict[str, Any]:
        """The likeliest class, its probability, and those of all."""
        best = int(score.argmax())
        every = {f"probability:{n}": float(p) for n, p in zip(self.classes, score, strict=True)}
        return {"prediction": self.classes[best], "probability": float(score[best]), **every}

    def as_json(self) -> dict[str, Any]:
        """Its kind, column and classes."""
        return {"kind": self.kind, "column": self.column, "classes": list(self.classes)}
