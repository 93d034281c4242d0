"""A plain scan of codes as they lie in a shard that no index covers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchknn.hamming.kernels import extension
from patchknn.hamming.packing import words
from patchknn.hamming.threads import even_ranges, over_queries, share_out

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint16]]

_WORTH_SHARING = 1 << 23  # bytes that take longer to scan than a thread takes to be woken
_BLOCK_ROWS = 1 << 18


def scan_rows(
    codes: npt.NDArray[np.uint8], queries: npt.NDArray[np.uint8], radius: int, threads: int = 1
) -> Found:
    """The rows of ``codes`` (n, K/8) within ``radius`` of each of ``queries`` (Q, K/8).

    Offsets (Q + 1,) int64: the rows (T,) int64 of query q, ascending, and their distances (T,)
    uint16 in bits lie from offsets[q] to offsets[q + 1]. Raises ValueError where shapes do not fit.
    """
    if codes.ndim != 2 or queries.ndim != 2 or codes.shape[1] != queries.shape[1] or radius < 0:
        message = f"queries {queries.shape} within {radius} do not fit codes {codes.shape}"
        raise ValueError(message)
    codes, queries = np.ascontiguousarray(codes), np.ascontiguousarray(queries)
    if threads > 1 and len(queries) >= 2 * threads:
        return _joined(over_queries(queries, threads, lambda some: _scan(codes, some, radius)))
    if threads > 1 and len(queries) and codes.size > _WORTH_SHARING:
        ranges = even_ranges(len(codes), threads)
        shares = share_out(
            threads, lambda ends: _scan(codes[slice(*ends)], queries, radius), ranges
        )
        return _merged([first for first, _ in ranges], shares)
    return _scan(codes, queries, radius)


def _scan(codes: npt.NDArray[np.uint8], queries: npt.NDArray[np.uint8], radius: int) -> Found:
    kernels = extension()
    if kernels is None:
        return _scan_numpy(codes, queries, radius)
    found = kernels.scan_rows(codes, queries, codes.shape[1], radius)
    return (
        np.frombuffer(found[0], np.int64),
        np.frombuffer(found[1], np.int64),
        np.frombuffer(found[2], np.uint16),
    )


def _scan_numpy(codes: npt.NDArray[np.uint8], queries: npt.NDArray[np.uint8], radius: int) -> Found:
    rows: list[list[npt.NDArray[np.int64]]] = [[] for _ in queries]
    distances: list[list[npt.NDArray[np.uint16]]] = [[] for _ in queries]
    targets = words(queries)
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = words(codes[start : start + _BLOCK_ROWS])
        for query, target in enumerate(targets):
            away = np.bitwise_count(block ^ target).sum(axis=1, dtype=np.uint16)
            near = np.flatnonzero(away <= radius)
            rows[query].append(near + start)
            distances[query].append(away[near])
    offsets = np.cumsum([0] + [sum(map(len, found)) for found in rows]).astype(np.int64)
    return (
        offsets,
        np.concatenate([np.zeros(0, np.int64), *[piece for found in rows for piece in found]]),
        np.concatenate([np.zeros(0, np.uint16), *[piece for far in distances for piece in far]]),
    )


def _joined(blocks: list[Found]) -> Found:
    """What one block of queries gave after what another did."""
    counts = [np.diff(offsets) for offsets, _, _ in blocks]
    return (
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))]),
        np.concatenate([rows for _, rows, _ in blocks]),
        np.concatenate([distances for _, _, distances in blocks]),
    )


def _merged(firsts: list[int], shares: list[Found]) -> Found:
    """What the same queries gave in consecutive ranges of rows that begin at ``firsts``."""
    n = len(shares[0][0]) - 1
    pieces = [
        (rows[offsets[q] : offsets[q + 1]] + first, distances[offsets[q] : offsets[q + 1]])
        for q in range(n)
        for first, (offsets, rows, distances) in zip(firsts, shares, strict=True)
    ]
    return (
        np.sum([offsets for offsets, _, _ in shares], axis=0),
        np.concatenate([rows for rows, _ in pieces]),
        np.concatenate([distances for _, distances in pieces]),
    )
