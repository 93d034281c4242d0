"""The sorted codes of many shards as one sorted sequence, range by range in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.hamming.packing import keys_of_words, words

Codes = npt.NDArray[np.uint8]
# Rows that are sorted at once where a code is one word: some 150 MB in passing.
_BLOCK_ROWS = 1 << 22
_SMALLEST_BLOCK = 1 << 14


@dataclass(frozen=True)
class Block:
    """The next stretch of the merged sequence.

    codes (u, W) uint64: its distinct codes, ascending; counts (u,) int64: how many rows have
    each; rows (m,) uint32: segment rows, by code and then by number. The rows of a very frequent
    code come in several blocks, of which only the first names the code.
    """

    codes: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.uint32]


class UnsortedError(ValueError):
    """The codes of run number ``run`` are not in ascending order."""

    def __init__(self, run: int) -> None:
        super().__init__(f"the codes of run {run} are not sorted")
        self.run = run


def merged(runs: Sequence[Codes], *, block_rows: int | None = None) -> Iterator[Block]:
    """Merge runs of sorted codes (n_s, K/8), row r of run s being segment row ``first_s`` + r.

    Raises UnsortedError where a run is not sorted.
    """
    if block_rows is None:
        n_words = -(-runs[0].shape[1] // 8)
        block_rows = max(_BLOCK_ROWS // n_words, _SMALLEST_BLOCK)
    first_rows = np.cumsum([0, *(len(run) for run in runs)])
    cuts = _cuts(runs, block_rows)
    last: Any = None
    for begin, end in pairwise(cuts):
        if (end < begin).any():
            raise UnsortedError(int(np.argmax(end < begin)))
        total = int((end - begin).sum())
        if not total:
            continue
        pieces = _equal_pieces(runs, begin, end) if total > block_rows else None
        if pieces is None:
            block, lowest, highest = _sorted_block(runs, first_rows, begin, end)
            if last is not None and lowest <= last:
                raise UnsortedError(0)
            last = highest
            yield block
            continue
        code, key = pieces
        if last is not None and key <= last:
            raise UnsortedError(0)
        last = key
        counts = np.array([total], np.int64)
        for number in np.flatnonzero(end > begin).tolist():
            first = first_rows[number]
            for start in range(begin[number], end[number], block_rows):
                stop = min(start + block_rows, end[number])
                rows = np.arange(first + start, first + stop).astype(np.uint32)
                yield Block(code, counts, rows)
                code, counts = code[:0], counts[:0]


def _sorted_block(
    runs: Sequence[Codes],
    first_rows: npt.NDArray[np.int64],
    begin: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
) -> tuple[Block, Any, Any]:
    columns, rows = [], []
    for number in np.flatnonzero(end > begin).tolist():
        piece = words(runs[number][begin[number] : end[number]])
        keys = keys_of_words(piece)
        if (keys[1:] < keys[:-1]).any():
            raise UnsortedError(number)
        first = int(first_rows[number])
        columns.append(piece)
        rows.append(np.arange(first + begin[number], first + end[number]).astype(np.uint32))
    block, row = np.concatenate(columns), np.concatenate(rows)
    keys = keys_of_words(block)
    if len(columns) > 1:
        # Stable: rows of one code stay in the order of their shards.
        order = np.argsort(keys, kind="stable")
        block, row, keys = block[order], row[order], keys[order]
    first_of_code = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first_of_code[1:])
    starts = np.flatnonzero(first_of_code)
    counts = np.diff(np.append(starts, len(keys)))
    return Block(block[starts], counts, row), keys[0], keys[-1]


def _equal_pieces(
    runs: Sequence[Codes], begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], Any] | None:
    """The one code (1, W) of a range and its key, None where the range holds several."""
    code = None
    for number in np.flatnonzero(end > begin).tolist():
        run = runs[number]
        for row in (begin[number], end[number] - 1):
            if code is not None and not np.array_equal(run[row], code):
                return None
            code = run[row]
        step = 1 << 20
        for start in range(begin[number], end[number], step):
            if (run[start : min(start + step, end[number])] != code).any():
                raise UnsortedError(number)
    assert code is not None
    word = words(code[None])
    return word, keys_of_words(word)[0]


def _cuts(runs: Sequence[Codes], block_rows: int) -> list[npt.NDArray[np.int64]]:
    """Places (S,) in each run between which at most some ``block_rows`` rows or one code lie."""
    lengths = np.array([len(run) for run in runs], np.int64)
    ends = [np.zeros(len(runs), np.int64)]
    if lengths.sum() > block_rows:
        pivots = _pivots(runs, block_rows)
        left = np.stack([_places(run, pivots, "left") for run in runs], axis=1)
        right = np.stack([_places(run, pivots, "right") for run in runs], axis=1)
        for below, through in zip(left, right, strict=True):
            # A frequent code stands alone: its rows need no sorting.
            if int((through - below).sum()) > block_rows // 2:
                ends.append(below)
            ends.append(through)
    ends.append(lengths)
    return ends


def _pivots(runs: Sequence[Codes], block_rows: int) -> npt.NDArray[np.uint64]:
    """Distinct codes (P, W), ascending, between neighbours of which half a block lies or so."""
    step = max(block_rows // (8 * len(runs)), 1)
    samples = words(np.concatenate([run[step // 2 :: step] for run in runs]))
    keys = keys_of_words(samples)
    order = np.argsort(keys, kind="stable")
    chosen = order[:: max(block_rows // (2 * step), 1)][1:]
    _, first = np.unique(keys[chosen], return_index=True)
    pivots: npt.NDArray[np.uint64] = samples[chosen[first]]
    return pivots


def _places(run: Codes, pivots: npt.NDArray[np.uint64], side: str) -> npt.NDArray[np.int64]:
    """``np.searchsorted`` that reads no more of a mapped run than it must."""
    wanted = keys_of_words(pivots)
    low = np.zeros(len(wanted), np.int64)
    high = np.full(len(wanted), len(run), np.int64)
    while True:
        open_ = low < high
        if not open_.any():
            return low
        middle = (low + high) // 2
        keys = keys_of_words(words(run[np.minimum(middle, len(run) - 1)]))
        after = keys < wanted if side == "left" else keys <= wanted
        low = np.where(open_ & after, middle + 1, low)
        high = np.where(open_ & ~after, middle, high)
