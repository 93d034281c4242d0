"""A grid as a picture: the three directions in which vectors differ most are red, green, blue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError
from patchknn.wholeslide.grids.grid import Grid

SAMPLE = 20_000
"""Vectors that the colours are found from, over all slides."""

_TAILS = (1.0, 99.0)  # per cent of the sample beyond which a channel is at its end
_BRIGHTEST = 230  # white is what is no tissue
_BLOCK_VALUES = 1 << 24
_MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class Colours:
    """How vectors (D,) become colours: ``components`` (C, D) of their distance from ``mean`` (D,).

    C is 3, or less where vectors differ in fewer directions. ``low`` and ``high`` (C,) are the ends
    of each channel; ``explained`` is the share of the variance that is seen.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    explained: float

    def of(self, vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Vectors (n, D) as colours (n, 3); a channel in which nothing differs is half lit."""
        values = (vectors.astype(np.float32) - self.mean) @ self.components.T
        span = self.high - self.low
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(span > 0, (values - self.low) / span, 0.5)
        lit = np.full((len(vectors), 3), 0.5, np.float32)
        lit[:, : shares.shape[1]] = shares.clip(0, 1)
        return np.rint(lit * _BRIGHTEST).astype(np.uint8)


def sample_vectors(grid: Grid, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Up to ``count`` vectors (n, D) of a grid's tissue, by chance."""
    places = grid.places()
    if len(places) > count:
        places = places[np.sort(rng.choice(len(places), count, replace=False))]
    vectors: NDArray[np.float32] = grid.features[0][:, places[:, 0], places[:, 1]].T.astype(
        np.float32
    )
    return vectors


def fit_colours(samples: Sequence[NDArray[np.float32]], seed: int = 0) -> Colours:
    """Colours by a principal component analysis of samples (n, D) of all slides together.

    Of fewer than two vectors all are grey.
    """
    from sklearn.decomposition import PCA

    sample = np.concatenate(samples)
    if len(sample) < 2:
        nothing = np.zeros(0, np.float32)
        width = sample.shape[1]
        mean, components = np.zeros(width, np.float32), np.zeros((0, width), np.float32)
        return Colours(mean, components, nothing, nothing, 0.0)
    with np.errstate(invalid="ignore"):  # where all are the same, shares of nothing are asked for
        pca = PCA(min(3, *sample.shape), random_state=seed).fit(sample)
    values = pca.transform(sample)
    low, high = np.percentile(values, _TAILS, axis=0)
    explained = np.nan_to_num(pca.explained_variance_ratio_).sum()
    return Colours(
        np.asarray(pca.mean_, np.float32),
        np.asarray(pca.components_, np.float32),
        low.astype(np.float32),
        high.astype(np.float32),
        float(explained),
    )


def preview(grid: Grid, colours: Colours, scale: int) -> NDArray[np.uint8]:
    """The picture (H · scale, W · scale, 3) of a grid; white where there is no tissue.

    Raises InputError where that would be too large a picture.
    """
    height, width = grid.mask.shape
    if height * width * scale**2 > _MOST_PIXELS:
        message = (
            f"The picture of {grid.info.name} would have {width * scale} × {height * scale} px; "
            "give a smaller --scale."
        )
        raise InputError(message)
    picture = np.full((height, width, 3), 255, np.uint8)
    rows = max(_BLOCK_VALUES // (grid.features.shape[1] * width), 1)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        mask = grid.mask[part]
        if mask.any():
            picture[part][mask] = colours.of(grid.features[0, :, part][:, mask].T)
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)
