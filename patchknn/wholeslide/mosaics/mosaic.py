"""The mosaic of a slide: the few patches that stand for all of them.

After Yottixel (Kalra et al. 2020, Medical Image Analysis 65:101757), which sorts the patches of a
slide by k-means and takes a share of each cluster, spread over the slide by a second k-means on
positions. Here clusters are of features, not of colour histograms, so that patches are told apart
by what the encoder has learnt; a cluster is spread by bins of equal numbers of patches, which need
no chance and no iteration; and of each bin the patch that is most like its cluster is taken.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.errors import UsageError

Int64 = npt.NDArray[np.int64]

_FIT_ROWS = 20_000  # of a larger slide, so many by chance say where the clusters lie
_BLOCK_ROWS = 8192
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class MosaicSettings(NamedTuple):
    """How many patches stand for a slide: a ``share`` of them in (0, 1], or a ``number``.

    ``clusters`` of features, each of which is represented; ``seed`` of the k-means.
    """

    share: float = 0.05
    number: int | None = None
    clusters: int = 9
    seed: int = 0

    def size_of(self, patches: int) -> int:
        """How many of a slide's patches its mosaic has; one of each cluster at least by share."""
        if self.number is not None:
            return min(self.number, patches)
        return min(max(math.ceil(round(self.share * patches, 9)), self.clusters), patches)


def parse_size(text: str) -> tuple[float, int | None]:
    """``5%`` or ``60`` as (share, count); UsageError for anything else."""
    share = _SHARE.fullmatch(text.strip())
    if share is not None and 0 < float(share[1]) <= 100:
        return float(share[1]) / 100, None
    if text.strip().isdecimal() and int(text) > 0:
        return MosaicSettings().share, int(text)
    message = f"--mosaic {text}: give a share of a slide's patches, as 5%, or a number, as 60."
    raise UsageError(message)


def choose_mosaic(features: npt.NDArray[Any], coords: Int64, settings: MosaicSettings) -> Int64:
    """The rows (m,) int64, ascending, of the patches that stand for a slide.

    ``features`` (n, D) of its n ≥ 1 patches, ``coords`` (n, 2) their level-0 positions. The same
    arrays and settings give the same rows.
    """
    size = settings.size_of(len(features))
    if size == len(features):
        return np.arange(size, dtype=np.int64)
    labels, away = _clusters(features, min(settings.clusters, size), settings.seed)
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    members = [own for own in members if len(own)]
    chosen = []
    for own, count in zip(members, _shared_out([len(own) for own in members], size), strict=True):
        bins = spatial_bins(coords[own], count)
        order = np.lexsort((away[own], bins))
        firsts = np.flatnonzero(np.diff(bins[order], prepend=-1))
        chosen.append(own[order[firsts]])
    return np.sort(np.concatenate(chosen))


def spatial_bins(coords: Int64, count: int) -> Int64:
    """The bin (n,), 0 to ``count`` - 1, of each position (n, 2): near ones share one.

    Positions are halved along their longer side, and the halves again, so that all bins hold the
    same number, give or take one; 1 ≤ ``count`` ≤ n.
    """
    bins = np.zeros(len(coords), np.int64)
    left = [(np.arange(len(coords)), 0, count)]
    while left:
        rows, first, n_bins = left.pop()
        bins[rows] = first
        if n_bins < 2:
            continue
        own = coords[rows]
        longer = int(np.ptp(own[:, 1]) > np.ptp(own[:, 0]))
        order = np.lexsort((own[:, 1 - longer], own[:, longer]))
        below = n_bins // 2
        middle = len(rows) * below // n_bins
        left.append((rows[order[:middle]], first, below))
        left.append((rows[order[middle:]], first + below, n_bins - below))
    return bins


def _shared_out(sizes: list[int], total: int) -> list[int]:
    """``total`` over clusters by their sizes, at least one each (largest remainders)."""
    room = np.array(sizes) - 1
    spare = total - len(sizes)
    exact = room * (spare / max(int(room.sum()), 1))
    counts = np.floor(exact + 1e-9).astype(np.int64)
    most_left = np.argsort(counts - exact, kind="stable")
    counts[most_left[: spare - int(counts.sum())]] += 1
    return [int(count) for count in counts + 1]


def _clusters(
    features: npt.NDArray[Any], count: int, seed: int
) -> tuple[Int64, npt.NDArray[np.float64]]:
    """The cluster (n,) of each patch, and how far (n,) it is from the centre."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    sample = features
    if len(features) > _FIT_ROWS:
        rows = np.random.default_rng(seed).choice(len(features), _FIT_ROWS, replace=False)
        sample = features[np.sort(rows)]
    model = KMeans(count, n_init=1, random_state=seed, max_iter=100)
    with warnings.catch_warnings():  # fewer different patches than clusters: some stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.asarray(sample, np.float32))
    labels, away = [], []
    for start in range(0, len(features), _BLOCK_ROWS):
        distances = model.transform(np.asarray(features[start : start + _BLOCK_ROWS], np.float32))
        labels.append(distances.argmin(axis=1))
        away.append(distances.min(axis=1))
    return np.concatenate(labels), np.concatenate(away).astype(np.float64)
