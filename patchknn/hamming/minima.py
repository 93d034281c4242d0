"""The least Hamming distance of each query to each group of codes that lie together."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from patchknn.hamming.packing import words
from patchknn.hamming.threads import share_out

Int64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_BLOCK = 1 << 14  # codes that stay in a core's cache while all queries pass over them


def word_columns(codes: npt.NDArray[np.uint8]) -> Words:
    """Codes (n, K/8) as columns (⌈K/64⌉, n) uint64, which ``group_minima`` reads."""
    return np.ascontiguousarray(words(codes).T)


def group_minima(
    columns: Words, starts: Int64, queries: npt.NDArray[np.uint8], threads: int = 1
) -> npt.NDArray[np.uint16]:
    """Distances (Q, G) uint16 in bits of ``queries`` (Q, K/8) to the nearest code of each group.

    ``columns`` (W, n) are the codes as ``word_columns`` has them; group g is those from starts[g]
    to starts[g + 1], ``starts`` (G + 1,) ascending from 0 to n. XOR and popcount over whole words,
    block by block. Raises ValueError where shapes do not fit or a group is empty.
    """
    wanted = words(queries)
    n_groups = len(starts) - 1
    sizes = np.diff(starts)
    fits = wanted.shape[1] == len(columns) and n_groups >= 0
    if not fits or starts[0] != 0 or starts[-1] != columns.shape[1] or (sizes <= 0).any():
        message = f"{n_groups} groups and queries {queries.shape} do not fit codes {columns.shape}"
        raise ValueError(message)
    least = np.empty((len(wanted), n_groups), np.uint16)

    def fill(groups: slice) -> None:
        first, last = int(starts[groups.start]), int(starts[groups.stop])
        block = columns[:, first:last]
        own = starts[groups] - first
        for query, target in enumerate(wanted):
            least[query, groups] = np.minimum.reduceat(_distances(block, target), own)

    share_out(threads, fill, _blocks(starts))
    return least


def _distances(block: Words, target: Words) -> npt.NDArray[np.unsignedinteger]:
    away: npt.NDArray[np.uint8] = np.bitwise_count(block[0] ^ target[0])
    if len(block) == 1:
        return away
    total: npt.NDArray[np.uint16] = away.astype(
        np.uint16
    )  # two words may differ in more bits than a byte can count
    for column, word in zip(block[1:], target[1:], strict=True):
        total += np.bitwise_count(column ^ word)
    return total


def _blocks(starts: Int64) -> list[slice]:
    """Groups in runs of about a block of codes, at least one group each."""
    n_groups = len(starts) - 1
    edges = [0]
    while edges[-1] < n_groups:
        reach = int(np.searchsorted(starts, starts[edges[-1]] + _BLOCK, side="right")) - 1
        edges.append(min(max(reach, edges[-1] + 1), n_groups))
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
