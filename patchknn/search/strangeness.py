"""How far a query lies from all that is archived, measured by how far the archive's own rows do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.calibration import Calibration
from patchknn.search.class_scores import Voting, relative_distances

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
RARE = 0.01  # what one in a hundred of the archive's own rows does not do


class Distances(NamedTuple):
    """Of n queries the distance of the nearest and of the k-th neighbour, NaN where it is missing.

    They are relative to the length of the query's features (search.votes).
    """

    nearest: Floats
    kth: Floats


def neighbour_distances(voting: Voting) -> Distances:
    """The distances of the first and the last of k neighbours."""
    relative = relative_distances(voting.distances, voting.norms)
    return Distances(relative[:, 0], relative[:, -1])


def strangeness(calibration: Calibration, distances: Distances) -> Floats:
    """How far off each query (n,) lies: 1 is where 99 in a hundred of the archive's own lie nearer.

    It is the distance of the k-th neighbour over that limit (Sun et al. 2022: deep nearest
    neighbours); with fewer than k that of the nearest over its own limit; infinite with none.
    """
    nearest = _over(distances.nearest, calibration.nearest_limit)
    score = np.where(np.isnan(distances.kth), nearest, _over(distances.kth, calibration.kth_limit))
    return np.where(np.isnan(score), np.inf, score)


def out_of_distribution(calibration: Calibration, distances: Distances) -> Flags:
    """Whether each query (n,) is like nothing in the archive: its strangeness is above 1.

    So it is where the search went out as far as it may and found fewer than k, unless that happens
    to more than one in a hundred of the archive's own rows too.
    """
    short = np.isnan(distances.kth)
    strange = strangeness(calibration, distances) > 1
    return np.asarray(strange | (short if calibration.short <= RARE else False))


def _over(distances: Floats, limit: float | None) -> Floats:
    if limit is None:
        return np.where(np.isnan(distances), np.nan, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distances == 0, 0.0, distances / limit)
