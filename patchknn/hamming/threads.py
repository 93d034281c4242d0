"""Threads that stay: searches take microseconds, starting a thread takes many.

To wake one takes a tenth of a millisecond or more, and so does each hand-over of the interpreter
between two: the calling thread does its share at once, and the kernels keep a thread until nothing
is left to do.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_SMALLEST_SHARE = 64  # queries
_MOST_THREADS = 256  # each has room of its own in a batch; few machines have more processors

Block = TypeVar("Block", bound=npt.NDArray[Any])
Task = TypeVar("Task")
Result = TypeVar("Result")


def clipped(threads: int) -> int:
    """So many threads, but at least one and no more than are of use."""
    return max(1, min(threads, _MOST_THREADS))


@functools.cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # which one query does without

    return ThreadPoolExecutor(threads, "patchknn")


os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not live on in a child


def share_out(threads: int, work: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """``work`` of each task, in order, by this thread and up to ``threads`` - 1 others.

    This one does not wait for others to wake up: what takes less than that is done by then. Raises
    what ``work`` raises, once all have stopped. ``work`` must not share out in turn.
    """
    left = deque(enumerate(tasks))
    results: list[Any] = [None] * len(left)

    def take() -> None:
        while left:
            try:
                number, task = left.popleft()
            except IndexError:  # another thread has taken the last
                return
            try:
                results[number] = work(task)
            except BaseException:
                left.clear()
                raise

    threads = clipped(threads)
    several = min(threads, len(left)) - 1
    others = [_helpers(threads - 1).submit(take) for _ in range(several)]
    try:
        take()
    finally:
        errors = [other.exception() for other in others if not other.cancel()]
    for error in errors:
        if error is not None:
            raise error
    return results


def block_size(n: int, threads: int) -> int:
    """How many of ``n`` queries a thread takes at a time: several times, unless they are few."""
    even = -(-n // clipped(threads))
    return max(1, min(even, max(_SMALLEST_SHARE, even // 4)))


def over_queries(queries: Block, threads: int, search: Callable[[Block], Result]) -> list[Result]:
    """What ``search`` gives for consecutive blocks of ``queries`` (Q, ...), in order."""
    size = block_size(len(queries), threads)
    blocks: list[Any] = [queries[start : start + size] for start in range(0, len(queries), size)]
    return share_out(threads, search, blocks)


def even_ranges(n: int, threads: int) -> list[tuple[int, int]]:
    """0 to ``n`` as consecutive ranges of about the same length, one for each of ``threads``."""
    ends = np.linspace(0, n, clipped(threads) + 1).astype(np.int64).tolist()
    return list(itertools.pairwise(ends))
