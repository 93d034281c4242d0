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

    It is the distance of the nearest neighbour over that limit, infinite where there is none. Deep
    nearest neighbours (Sun et al. 2022) takes the k-th of all rows; the k-th of a small ball is
    far away for rows that are at home too. Chest X-rays among colon cells: AUROC .88 by the
    nearest, .76 by the k-th (tests/benchmarks/confidence.py).
    """
    limit = calibration.nearest_limit
    if limit is None:
        score = np.where(np.isnan(distances.nearest), np.inf, 0.0)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            over = distances.nearest / limit
        score = np.where(distances.nearest == 0, 0.0, over)
    return np.where(np.isnan(score), np.inf, score)


def out_of_distribution(calibration: Calibration, distances: Distances) -> Flags:
    """Whether each query (n,) is like nothing in the archive: its strangeness is above 1.

    So it is where the search went out as far as it may and found fewer than k, unless that happens
    to more than one in a hundred of the archive's own rows too.
    """
    short = np.isnan(distances.kth)
    strange = strangeness(calibration, distances) > 1
    return np.asarray(strange | (short if calibration.short <= RARE else False))
