"""Iterative quantisation (Gong, Lazebnik et al. 2013): hash codes for features as they are.

Features are centred and projected on their first principal components; a rotation is then
learnt that brings the projections close to the corners of the hypercube {-1, 1}^K.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchknn.errors import InputError
from patchknn.hamming.packing import check_bits

Matrix = npt.NDArray[np.float64]

# Rows beyond this change the rotation by less than a change of seed does.
MAX_ROWS = 50_000


def fit_itq(
    features: npt.ArrayLike, bits: int, seed: int, iterations: int = 50
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fit the hash map of features (N, D): weight (K, D) and bias (K,), both float32.

    Bit i of a feature x is 1 where ``weight[i] @ x + bias[i] > 0``. More than 50,000 rows are
    sampled. Where K exceeds the rank R of the features (at most D and N - 1), the bits fall into
    ⌈K/R⌉ nearly equal blocks, each with its own rotation from its own random start: no block
    repeats another, though together they are not orthogonal. The same input and seed give the
    same map on the same machine.

    Raises InputError where fewer than two rows differ or a value is not finite.
    """
    check_bits(bits)
    values = np.asarray(features)
    if values.ndim != 2:
        message = f"features of shape {values.shape} are not (N, D)"
        raise ValueError(message)
    generator = np.random.default_rng(seed)
    if len(values) > MAX_ROWS:
        values = values[np.sort(generator.choice(len(values), MAX_ROWS, replace=False))]
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        message = "The features to fit codes on hold a NaN or an infinity; embed the images again."
        raise InputError(message)
    mean, components = principal_components(values)
    rank = components.shape[1]
    if rank == 0:
        message = "Codes need at least two different features to be fitted on; give more images."
        raise InputError(message)
    blocks = []
    for size in block_sizes(bits, rank):
        projection = components[:, :size]
        rotation, _ = learn_rotation(
            (values - mean) @ projection, random_rotation(size, generator), iterations
        )
        blocks.append((projection @ rotation).T)
    weight = np.concatenate(blocks).astype(np.float32)
    bias = -(weight.astype(np.float64) @ mean)
    return weight, bias.astype(np.float32)


def principal_components(values: Matrix) -> tuple[Matrix, Matrix]:
    """Mean (D,) and orthonormal principal directions (D, R), largest variance first.

    R is the numerical rank of the centred values (N, D).
    """
    if not len(values):
        return np.zeros(values.shape[1]), np.zeros((values.shape[1], 0))
    mean = values.mean(axis=0)
    centred = values - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    tolerance = max(values.shape) * np.finfo(np.float64).eps * float(np.square(values).sum())
    vectors = vectors[:, variances > tolerance][:, : max(len(values) - 1, 0)]
    # LAPACK is free to return either sign; the largest entry is made positive.
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return mean, vectors * signs


def block_sizes(bits: int, rank: int) -> list[int]:
    """Split K bits into the fewest blocks of at most ``rank``, as equal as can be."""
    count = -(-bits // rank)
    return [bits // count + (block < bits % count) for block in range(count)]


def random_rotation(size: int, generator: np.random.Generator) -> Matrix:
    """An orthogonal matrix (size, size), uniform over all of them."""
    orthogonal, triangular = np.linalg.qr(generator.standard_normal((size, size)))
    diagonal = np.diagonal(triangular)
    return np.asarray(orthogonal * np.where(diagonal < 0, -1.0, 1.0), np.float64)


def learn_rotation(
    projected: Matrix, rotation: Matrix, iterations: int
) -> tuple[Matrix, list[float]]:
    """Alternate between codes and rotation (section 3.2); also the error before each step.

    ``projected`` (N, K) is V of the paper, ``rotation`` (K, K) orthogonal is R, the error is the
    quantisation loss ||B - V R||² of equation 2, which never grows.
    """
    errors = []
    for _ in range(iterations):
        rotated = projected @ rotation
        corners = np.where(rotated > 0, 1.0, -1.0)
        errors.append(float(np.square(corners - rotated).sum()))
        left, _, right = np.linalg.svd(corners.T @ projected)
        rotation = right.T @ left.T
    return rotation, errors
