"""Several methods beside each other: how sure their figures are, and which is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.intervals import bootstrap_intervals
from patchknn.evaluation.figures.paired import compare


def with_intervals(
    evaluations: Sequence[Evaluation], replicates: int, seed: int
) -> list[Evaluation]:
    """The evaluations with intervals; those after the first with a test against it too.

    ``replicates`` draws of patients, the same ones for methods that were asked the same queries.
    """
    result: list[Evaluation] = []
    for one in evaluations:
        paired = None
        if result:
            first = evaluations[0]
            paired = compare(first.outcomes, one.outcomes, first.method, replicates, seed)
        intervals = bootstrap_intervals(one.outcomes, replicates, seed)
        result.append(replace(one, intervals=intervals, paired=paired))
    return result
