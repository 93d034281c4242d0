"""Queries in two or more parts, so that no patient is in two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.errors import InputError


def folds_of(
    groups: npt.NDArray[np.integer[Any]], folds: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The fold (n,) of each query, from 0; queries of one group, such as a patient, share theirs.

    Groups are taken by chance, each into the fold that has fewest queries. There are as many
    folds as groups at most. Raises InputError where there is one group alone.
    """
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        message = (
            "all queries are of one patient, so that none is left to judge a calibration by: give "
            "labelled DATA of others."
        )
        raise InputError(message)
    filled = np.zeros(min(folds, len(sizes)), np.int64)
    fold = np.zeros(len(sizes), np.int64)
    for group in generator.permutation(len(sizes)).tolist():
        fold[group] = np.argmin(filled)
        filled[fold[group]] += sizes[group]
    return fold[inverse]
