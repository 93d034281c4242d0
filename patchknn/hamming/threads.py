"""Threads that stay: searches take microseconds, starting a thread takes many."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_SMALLEST_SHARE = 64  # queries
_MOST_THREADS = 256  # each has room of its own in a batch; few machines have more processors

Block = TypeVar("Block", bound=npt.NDArray[Any])
Result = TypeVar("Result")


def clipped(threads: int) -> int:
    """So many threads, but at least one and no more than are of use."""
    return max(1, min(threads, _MOST_THREADS))


def pool(threads: int) -> ThreadPoolExecutor:
    """A pool of ``threads``, clipped, that is kept for the next call.

    What runs in it must not use it.
    """
    return _pool(clipped(threads))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # which one query does without

    return ThreadPoolExecutor(threads, "patchknn")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a child


def over_queries(queries: Block, threads: int, search: Callable[[Block], Result]) -> list[Result]:
    """What ``search`` gives for consecutive blocks of ``queries`` (Q, ...), in order."""
    even = -(-len(queries) // threads)
    size = max(1, min(even, max(_SMALLEST_SHARE, even // 4)))
    blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
    return list(pool(threads).map(search, blocks))


def even_ranges(n: int, threads: int) -> list[tuple[int, int]]:
    """0 to ``n`` as consecutive ranges of about the same length, one for each of ``threads``."""
    ends = np.linspace(0, n, clipped(threads) + 1).astype(np.int64).tolist()
    return list(itertools.pairwise(ends))
