"""The distinct codes of an index: balls around queries, and the nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.hamming.code_table_numpy import NumpyCodeTable
from patchknn.hamming.kernels import extension
from patchknn.hamming.parts import Part, build_parts, part_widths
from patchknn.hamming.threads import block_size, even_ranges, share_out

__all__ = ["CodeArrays", "CodeTable", "Hits", "Part", "build_parts", "part_widths"]

PATHS = ("scan", "probe", "multi-index")
_PATH_NUMBERS = {"scan": 0, "probe": 1, "multi-index": 2, None: -1}
_DEFERRED = -1
# Made once: to look up a dtype by its type takes longer than to look up a code.
_UINT64, _INT64 = np.dtype(np.uint64), np.dtype(np.int64)
_UINT32, _UINT16 = np.dtype(np.uint32), np.dtype(np.uint16)
_WORK = np.dtype((np.int64, 4))
_WORTH_SHARING = 1 << 22  # words that take longer to scan than a thread takes to be woken


class CodeArrays(NamedTuple):
    """Codes (U, W) uint64, distinct and ascending, of ``bits`` bits each, and their index.

    bounds (U + 1,) uint32: code u has positions bounds[u] to bounds[u + 1], at least one.
    """

    bits: int
    codes: npt.NDArray[np.uint64]
    bounds: npt.NDArray[np.uint32]
    parts: tuple[Part, ...] = ()


class Hits(NamedTuple):  # quick to make: it is made for each query
    """Codes found for Q queries: those of query q from offsets[q] to offsets[q + 1].

    offsets (Q + 1,) int64; codes (T,) uint32 code numbers, in no particular order within a query;
    distances (T,) uint16 in bits; work (Q, 4) int64: path (0 scan, 1 probe, 2 multi-index), buckets
    looked up, their entries compared, codes scanned.
    """

    offsets: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint32]
    distances: npt.NDArray[np.uint16]
    work: npt.NDArray[np.int64]


class CodeTable:
    """Search over distinct codes, by the C kernels or by NumPy, as chosen when it is made."""

    def __init__(self, arrays: CodeArrays) -> None:
        """Over arrays that may be memory maps: nothing is read but the ends of bounds.

        Raises ValueError where shapes, dtypes or the ends of bounds do not fit.
        """
        _check(arrays)
        self.arrays = arrays
        self.bits = arrays.bits
        self.n_codes = len(arrays.codes)
        self.n_positions = int(arrays.bounds[-1])
        self._width = arrays.codes.shape[1]
        kernels = extension()
        self.kernel: Any = NumpyCodeTable(arrays)
        if kernels is not None:
            parts = tuple(
                (part.first_bit, part.width, part.bounds, part.order, part.window)
                for part in arrays.parts
            )
            self.kernel = kernels.CodeTable(arrays.bits, arrays.codes, arrays.bounds, parts)

    def ball(
        self,
        queries: npt.NDArray[np.uint64],
        radius: int,
        *,
        path: str | None = None,
        threads: int = 1,
    ) -> Hits:
        """Every code within ``radius`` (inclusive) of each query (Q, W), each once.

        ``path`` forces one of PATHS; without it the cheapest is chosen for each query. Raises
        ValueError where the index turns out to hold a value out of range.
        """
        queries = self._checked(queries)
        number = _PATH_NUMBERS[path]
        if threads <= 1 or len(queries) >= threads * 2:
            return _hits(self._each(threads, "ball", queries, radius, number, 0))
        if number == 0:
            return self.scan(queries, radius, threads=threads)
        hits = _hits(self.kernel.ball(queries, radius, number, 1))
        dear = np.flatnonzero(hits.work[:, 0] == _DEFERRED)
        if not len(dear):
            return hits
        return _replaced(hits, dear, self.scan(queries[dear], radius, threads=threads))

    def scan(self, queries: npt.NDArray[np.uint64], radius: int, *, threads: int = 1) -> Hits:
        """What ``ball`` gives, by comparing every code with every query."""
        queries = self._checked(queries)
        scan = self.kernel.scan
        if threads > 1 and len(queries) >= threads * 2:
            return _hits(self._each(threads, "ball", queries, radius, _PATH_NUMBERS["scan"], 0))
        if threads <= 1 or not len(queries) or self.n_codes * self._width < _WORTH_SHARING:
            return _hits(scan(queries, radius, 0, self.n_codes))
        ranges = even_ranges(self.n_codes, threads)
        return _merged(share_out(threads, lambda ends: _hits(scan(queries, radius, *ends)), ranges))

    def nearest(
        self, queries: npt.NDArray[np.uint64], k: int, max_radius: int, *, threads: int = 1
    ) -> tuple[Hits, npt.NDArray[np.int32]]:
        """The ball of the smallest radius that holds at least ``k`` >= 1 positions, and the radius.

        Per query of (Q, W); up to ``max_radius``, whose ball is given with radius -1 where it holds
        fewer. Radii (Q,) int32. Raises ValueError as ``ball`` does.
        """
        queries = self._checked(queries)
        *found, radii = self._each(threads, "nearest", queries, k, max_radius)
        return _hits(found), np.frombuffer(radii, np.int32)

    def _each(
        self, threads: int, what: str, queries: npt.NDArray[np.uint64], *asked: int
    ) -> Sequence[Any]:
        """What the kernels find, a thread for a query and block after block."""
        found: Sequence[Any]
        if threads <= 1 or len(queries) < 2 or isinstance(self.kernel, NumpyCodeTable):
            found = getattr(self.kernel, what)(queries, *asked)
        else:
            size = block_size(len(queries), threads)
            search = getattr(self.kernel, f"{what}_blocks")(queries, *asked, size)
            share_out(threads, lambda _: search.work(), range(threads))
            found = search.result()
        return found

    def _checked(self, queries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        if queries.dtype != _UINT64 or queries.ndim != 2 or queries.shape[1] != self._width:
            message = f"queries {queries.shape} {queries.dtype} are not words of {self.bits} bits"
            raise ValueError(message)
        return queries if queries.flags.c_contiguous else np.ascontiguousarray(queries)


def _check(arrays: CodeArrays) -> None:
    width = -(-arrays.bits // 64)
    held: list[tuple[str, npt.NDArray[Any] | None, type]] = [
        ("codes", arrays.codes, np.uint64),
        ("bounds", arrays.bounds, np.uint32),
    ]
    for number, part in enumerate(arrays.parts):
        held.append((f"bounds of part {number}", part.bounds, np.uint32))
        if number:
            held.append((f"order of part {number}", part.order, np.uint32))
            held.append((f"window of part {number}", part.window, np.uint64))
    for name, array, dtype in held:
        if array is None or array.dtype != dtype or array.ndim != (2 if name == "codes" else 1):
            message = f"{name} of the table of codes: missing, or of another shape or dtype"
            raise ValueError(message)
        if not array.flags.c_contiguous:
            message = f"{name} of the table of codes: not contiguous"
            raise ValueError(message)
    if arrays.codes.shape != (len(arrays.bounds) - 1, width):
        message = f"codes {arrays.codes.shape} do not fit bounds {arrays.bounds.shape}"
        raise ValueError(message)


def _hits(found: Sequence[Any]) -> Hits:
    return Hits(
        np.frombuffer(found[0], _INT64),
        np.frombuffer(found[1], _UINT32),
        np.frombuffer(found[2], _UINT16),
        np.frombuffer(found[3], _WORK),
    )


def _joined(blocks: list[Hits]) -> Hits:
    """The hits of one block of queries after those of another."""
    if not blocks:
        return _hits([np.zeros(1, np.int64), b"", b"", b""])
    ends = np.cumsum([0] + [len(block.codes) for block in blocks])
    offsets = [block.offsets[1:] + end for block, end in zip(blocks, ends[:-1], strict=True)]
    return Hits(
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([block.codes for block in blocks]),
        np.concatenate([block.distances for block in blocks]),
        np.concatenate([block.work for block in blocks]),
    )


def _merged(shares: list[Hits]) -> Hits:
    """The hits of the same queries in several ranges of codes."""
    n = len(shares[0].work)
    pieces = [(share, share.offsets[q], share.offsets[q + 1]) for q in range(n) for share in shares]
    return Hits(
        np.sum([share.offsets for share in shares], axis=0),
        np.concatenate([share.codes[first:last] for share, first, last in pieces]),
        np.concatenate([share.distances[first:last] for share, first, last in pieces]),
        np.sum([share.work for share in shares], axis=0),
    )


def _replaced(hits: Hits, queries: npt.NDArray[np.int64], others: Hits) -> Hits:
    """``hits`` with those of some ``queries``, so far without any, taken from ``others``."""
    places = {int(query): place for place, query in enumerate(queries)}
    blocks = []
    for query in range(len(hits.work)):
        found, number = (hits, query) if query not in places else (others, places[query])
        piece = slice(found.offsets[number], found.offsets[number + 1])
        work = found.work[number : number + 1].copy()
        if query in places:
            work[:, 1:] += hits.work[query, 1:]
        offsets = np.array([0, piece.stop - piece.start], np.int64)
        blocks.append(Hits(offsets, found.codes[piece], found.distances[piece], work))
    return _joined(blocks)
