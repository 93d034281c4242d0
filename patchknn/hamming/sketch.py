"""Sketches of features: 64 bytes a row that bound every distance from below.

With P (31 × D) of spectral norm at most 1 and x less the mean, the map
x → (P x, sqrt(|x|² - |P x|²)) never lengthens a distance: x → (P x, (I - PᵀP)^½ x) keeps it, and
the difference of two norms is at most the norm of the difference. Where features lie near a few
directions, as those of networks do, it hardly shortens one either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

PROJECTIONS = 31  # with the norm of the rest a sketch fills one cache line
WIDTH = PROJECTIONS + 1

_LARGEST = 256.0  # of a sketch's values in the sample; float16 ends at 65504
_BLOCK_VALUES = 1 << 20
_FIT_VALUES = 1 << 24
_FIT_ROWS = 8192
_TRIALS = 64
_NEIGHBOURS = 10
_PAYS_BELOW = 0.5  # of the rows still read
_MIN_ROW_BYTES = 4 * 2 * WIDTH


class Projection(NamedTuple):
    """The directions that sketches keep.

    mean (D,) float64; matrix (31, D) float64 of spectral norm at most 1; scale: what one unit of
    a stored value stands for.
    """

    mean: Float64
    matrix: Float64
    scale: float

    def sketch(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
        """Sketches (n, 32) float16 of ``features`` (n, D); NaN where a row is out of range."""
        return self.bounded_sketch(features)[0]

    def bounded_sketch(self, features: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float16], float]:
        """Sketches (n, 32) float16 and the slack: how far any of them is from its true value.

        For the rows x of ``features`` and any q with the true sketch s(q),
        |x - q| ≥ |scale · sketch(x) - s(q)| - slack. Of several blocks the largest slack holds. A
        row that float16 cannot hold becomes NaN, which bounds nothing.
        """
        dim = len(self.mean)
        values = np.empty((len(features), WIDTH), np.float16)
        slack = 0.0
        step = max(1, _BLOCK_VALUES // dim)
        # What float64 loses, per length of the centred row; derived in _kernels_query.c.
        unit = 2.0**-53 * (dim + 40)
        lost = 8 * unit + float(np.sqrt(16 * unit))
        for start in range(0, len(features), step):
            block = features[start : start + step].astype(np.float64)
            exact, lengths = self._map(block)
            stored = values[start : start + step]
            with np.errstate(over="ignore"):
                stored[:] = exact / self.scale
            stored[~np.isfinite(stored).all(axis=1)] = np.nan
            error = stored.astype(np.float64) * self.scale - exact
            bound = np.sqrt((error * error).sum(axis=1)) + lost * lengths
            bound = bound[np.isfinite(bound)]
            slack = max(slack, float(bound.max(initial=0.0)) * (1 + 1e-9))
        return values, slack

    def _map(self, block: Float64) -> tuple[Float64, Float64]:
        centred = block - self.mean
        squares = np.einsum("ij,ij->i", centred, centred)
        exact = np.empty((len(block), WIDTH), np.float64)
        exact[:, :PROJECTIONS] = centred @ self.matrix.T
        kept = np.einsum("ij,ij->i", exact[:, :PROJECTIONS], exact[:, :PROJECTIONS])
        exact[:, PROJECTIONS] = np.sqrt(np.maximum(squares - kept, 0))
        return exact, np.sqrt(squares)


class Sketch(NamedTuple):
    """The sketches of a segment: values (n, 32) float16 by position, and their slack.

    So those of a ball, which is a few runs of positions, lie side by side.
    """

    projection: Projection
    values: npt.NDArray[np.float16]
    slack: float


def fit_projection(sample: npt.NDArray[Any]) -> Projection | None:
    """The projection for rows like ``sample`` (n, D), or None where it would not help.

    It helps where fewer than half of the rows would still be read for 10 neighbours; it does not
    where features fill all directions alike, and rows of a few hundred bytes are read as fast as
    their sketches. The same sample gives the same projection on the same machine.
    """
    n, dim = sample.shape
    if dim <= WIDTH or dim * min(4, sample.dtype.itemsize) < _MIN_ROW_BYTES or n < 4 * WIDTH:
        return None
    most = min(_FIT_ROWS, max(4 * WIDTH, _FIT_VALUES // dim))
    values = sample[:: -(-n // most)].astype(np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    largest = float(np.sqrt(np.einsum("ij,ij->i", centred, centred).max()))
    if not 0 < largest < np.inf:
        return None
    matrix = _shortened(_directions(centred / largest))
    projection = Projection(mean, matrix, largest / _LARGEST)
    return projection if _share_read(projection, values) < _PAYS_BELOW else None


def _directions(centred: Float64) -> Float64:
    """Nearly the first principal directions (31, D), by subspace iteration."""
    generator = np.random.default_rng(0)
    basis = generator.standard_normal((centred.shape[1], PROJECTIONS + 1))
    for _ in range(6):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, _, rotation = np.linalg.svd(centred @ basis, full_matrices=False)
    return np.ascontiguousarray((basis @ rotation.T).T[:PROJECTIONS])


def _shortened(matrix: Float64) -> Float64:
    """``matrix`` scaled so that its spectral norm is at most 1.

    The largest eigenvalue of M Mᵀ is at most its largest absolute row sum; 1e-9 is more than all
    of the rounding here.
    """
    largest = float(np.abs(matrix @ matrix.T).sum(axis=1).max())
    shortened: Float64 = matrix / (np.sqrt(largest) * (1 + 1e-9))
    return shortened


def _share_read(projection: Projection, values: Float64) -> float:
    """The share of ``values`` (n, D) whose sketches do not rule them out, over trial queries."""
    sketches = projection.sketch(values).astype(np.float64) * projection.scale
    shares = []
    for row in range(0, len(values), -(-len(values) // _TRIALS)):
        difference = values - values[row]
        distances = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        apart = sketches - sketches[row]
        bounds = np.sqrt(np.einsum("ij,ij->i", apart, apart))
        furthest = np.partition(distances, _NEIGHBOURS)[_NEIGHBOURS]  # itself is the nearest
        shares.append(np.mean(~(bounds > furthest)))
    return float(np.mean(shares))
