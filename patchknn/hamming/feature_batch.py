"""Many queries at once: rows that they share go through one matrix product.

Reading a row for one query at a time is bound by memory; the products of a block of rows with all
queries that want it are bound by arithmetic, which is many times faster. Where there are sketches,
theirs are multiplied first, and rule out most rows where that pays (_kernels_sieve.c). The products
select candidates with a proven margin (_kernels_blocks.c); float64 distances decide.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.hamming.overlaps import Ranges, Shared, part_shared, shares
from patchknn.hamming.threads import share_out

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_PANEL_WIDTH = 32
_LEAST_QUERIES = 6  # fewer are served sooner one by one
_LEAST_PRODUCTS = 1 << 12
_TASK_VALUES = 1 << 27  # multiplications of one task: some milliseconds
_SAMPLE = 256


class _Task(NamedTuple):
    """Rows ``start`` to ``stop`` against the queries numbered ``queries`` (m,)."""

    start: int
    stop: int
    queries: Int64
    panels: Float32
    lengths: Float64


def rank_many(
    batch: Any,
    take: Callable[[Int64], Float64],
    queries: Float64,
    ranges: Ranges,
    threads: int,
) -> tuple[Int64, Int64, Float64, Int64]:
    """What ``FeatureTable.nearest_many`` gives, by ``batch``, a RowBatch of ``threads`` slots.

    ``take`` gives the features (m, D) at positions (m,). The last are the rows that each query read
    and skipped, (Q, 2).
    """
    shared, rest = part_shared(ranges, _LEAST_QUERIES, _LEAST_PRODUCTS)
    _one_by_one(batch, rest, threads)
    if len(shared.starts):
        batch.share()
        spans = shares(np.arange(len(queries) + 1), threads)
        share_out(threads, lambda span: batch.prepare(*span), spans)
        _by_products(batch, take, queries, shared, threads)
    spans = shares(ranges.rows_before(), threads)
    parts = share_out(threads, lambda span: batch.finish(*span), spans)
    found = np.concatenate([np.frombuffer(part[0], np.int64) for part in parts])
    positions = np.concatenate([np.frombuffer(part[1], np.int64) for part in parts])
    distances = np.concatenate([np.frombuffer(part[2], np.float64) for part in parts])
    work = np.concatenate([np.frombuffer(part[3], np.int64) for part in parts]).reshape(-1, 2)
    return np.append(0, np.cumsum(found)), positions, distances, work


def _one_by_one(batch: Any, ranges: Ranges, threads: int) -> None:
    if not len(ranges.starts):
        return

    def search(span: tuple[int, int]) -> None:
        first, last = span
        own = ranges.of(slice(first, last))
        batch.search(first, last, own.offsets, own.starts, own.stops)

    share_out(threads, search, shares(ranges.rows_before(), 4 * threads))


def _by_products(
    batch: Any, take: Callable[[Int64], Float64], queries: Float64, shared: Shared, threads: int
) -> None:
    dim = queries.shape[1]
    mean = np.zeros(-(-dim // 16) * 16, np.float32)
    mean[:dim] = _mean(take, shared)
    centred = queries - mean[:dim]
    with np.errstate(over="ignore"):
        single = centred.astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    lock = threading.Lock()
    tasks = _tasks(single, lengths, shared)

    def work(slot: int) -> None:
        while True:
            with lock:
                task = next(tasks, None)
            if task is None:
                return
            batch.match(slot, task.start, task.stop, task.queries, task.panels, task.lengths, mean)

    share_out(threads, work, range(threads))


def _tasks(single: Float32, lengths: Float64, shared: Shared) -> Iterator[_Task]:
    dim = single.shape[1]
    for i, (start, stop) in enumerate(
        zip(shared.starts.tolist(), shared.stops.tolist(), strict=True)
    ):
        own = shared.queries[shared.offsets[i] : shared.offsets[i + 1]]
        panels = np.zeros((-(-len(own) // _PANEL_WIDTH), _PANEL_WIDTH, dim), np.float32)
        panels.reshape(-1, dim)[: len(own)] = single[own]
        panels = np.ascontiguousarray(panels.transpose(0, 2, 1))
        step = max(192, _TASK_VALUES // (len(own) * dim))
        for first in range(start, stop, step):
            yield _Task(first, min(first + step, stop), own, panels, lengths[own])


def _mean(take: Callable[[Int64], Float64], shared: Shared) -> Float64:
    """Roughly the mean of the shared rows.

    Any vector would do; a near one keeps the products, and so the margins, small.
    """
    ends: Int64 = np.cumsum(shared.stops - shared.starts)
    wanted = np.unique(np.linspace(0, int(ends[-1]) - 1, _SAMPLE).astype(np.int64))
    pieces = np.searchsorted(ends, wanted, side="right")
    positions: Int64 = shared.stops[pieces] - (ends[pieces] - wanted)
    mean: Float64 = take(positions).mean(axis=0)
    return mean
