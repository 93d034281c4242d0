"""Below which confidence to abstain, for the answers that are given to be right so often."""

from __future__ import annotations

from collections.abc import Sequence

from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.confidence import accuracy_at, confidences
from patchknn.evaluation.sections import Section

COLUMNS = ("method", "score", "wished", "threshold", "coverage", "accuracy", "lower", "n")


def abstention_section(evaluations: Sequence[Evaluation]) -> Section:
    """Per method and score of confidence, the threshold for each wished accuracy.

    ``coverage`` is the share that is answered then, ``lower`` what the accuracy is at least (95 %,
    one-sided); all of them are None where no threshold reaches it.
    """
    rows = [
        {"method": one.method, "score": score, "wished": float(wished), **(found or {})}
        for one in evaluations
        for score, pair in confidences(one.outcomes).items()
        for wished, found in accuracy_at(*pair).items()
    ]
    return Section("abstention", "To be right so often, abstain below", COLUMNS, rows)
