"""Harrell's concordance: how often who has the event earlier was given the higher risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

_CELLS = 1 << 24  # pairs that are looked at at once


def concordance(
    time: Floats,
    event: Bools,
    risk: Floats,
    strata: npt.NDArray[np.integer[Any]] | None = None,
) -> float | None:
    """The share of comparable pairs whose risks (n,) stand in the right order, ties one half.

    ``time`` (n,) in any unit, ``event`` (n,) whether it was seen then or is censored. A pair can
    be compared where the earlier one had the event, at one time where one of the two had it
    (Harrell 1996). With ``strata`` (n,) only pairs of one stratum count, as risks of two models
    have no common scale. None where no pair can be compared.
    """
    groups = np.zeros(len(time), np.int64) if strata is None else strata
    right, pairs = 0.0, 0
    for stratum in np.unique(groups):
        mine = np.flatnonzero(groups == stratum)
        found = _pairs(time[mine], event[mine], risk[mine])
        right, pairs = right + found[0], pairs + found[1]
    return right / pairs if pairs else None


def _pairs(time: Floats, event: Bools, risk: Floats) -> tuple[float, int]:
    right, pairs = 0.0, 0
    rows = np.flatnonzero(event)
    step = max(1, _CELLS // max(len(time), 1))
    for start in range(0, len(rows), step):
        some = rows[start : start + step, None]
        later = (time[some] < time) | ((time[some] == time) & ~event)
        above, equal = risk[some] > risk, risk[some] == risk
        right += float((later & above).sum()) + float((later & equal).sum()) / 2
        pairs += int(later.sum())
    return right, pairs
