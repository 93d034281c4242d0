"""What the archive's own rows say of how far a query may lie, and how well that tells strangers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.figures.auroc import auroc
from patchknn.search.strangeness import RARE, Distances

Floats = npt.NDArray[np.float64]
_PERCENTILES = (1, 50, 99)


class Limits(NamedTuple):
    """The distance of the ``nearest`` neighbour that one in a hundred exceeds, None where it is
    infinite or none has a neighbour; ``short``: the share of queries with fewer than k of them.
    """

    nearest: float | None
    short: float


def limits_of(distances: Distances) -> Limits:
    """The limits that these queries, known to be at home in the archive, set to others."""
    return Limits(
        nearest=_quantile(distances.nearest, 1 - RARE),
        short=float(np.isnan(distances.kth).mean()),
    )


def own_distances(distances: Distances, radius: npt.NDArray[np.integer[Any]]) -> dict[str, Any]:
    """How far the archive's own neighbours lie, at the percentiles 1, 50 and 99; for people.

    ``radius`` (n,) in bits is the one that the search reached, negative where it has none.
    """
    columns = {
        "nearest": distances.nearest,
        "kth": distances.kth,
        "radius": np.where(radius < 0, np.nan, radius),
    }
    return {
        name: {f"p{place}": _quantile(values, place / 100) for place in _PERCENTILES}
        for name, values in columns.items()
    }


def foreign_auroc(own: Floats, foreign: Floats) -> float | None:
    """The chance that a foreign query (m,) is stranger than one of the archive's own (n,)."""
    both = np.concatenate([own, foreign])
    return auroc(both, np.arange(len(both)) >= len(own))


def _quantile(values: Floats, share: float) -> float | None:
    """A value that so many of those that there are do not exceed; None where it is infinite."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    found = float(np.quantile(known, share, method="higher"))
    return found if np.isfinite(found) else None
