"""Hamming distances of packed codes by counting the bits of an XOR."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def hamming_distances(
    codes: npt.NDArray[np.uint8], query: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int32]:
    """Distances (N,) int32 in bits of codes (N, K/8) to one query (K/8,)."""
    codes = np.ascontiguousarray(codes, np.uint8)
    query = np.ascontiguousarray(query, np.uint8)
    if codes.ndim != 2 or query.shape != codes.shape[1:]:
        message = f"codes of shape {codes.shape} and a query of shape {query.shape} do not fit"
        raise ValueError(message)
    # The widest words that divide a code: fewer passes over memory.
    width = next(size for size in (8, 4, 2, 1) if query.size % size == 0)
    columns = codes.view(f"u{width}")
    targets = query.view(f"u{width}")
    distances = np.zeros(len(codes), np.int32)
    for column, target in enumerate(targets):
        distances += np.bitwise_count(columns[:, column] ^ target)
    return distances
