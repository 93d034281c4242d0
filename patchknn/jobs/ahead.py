"""Threads that work ahead of whoever uses what they make, by a few items and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int, waiting: int
) -> Generator[Made, None, None]:
    """``make`` of each item, in order, by threads; without any, as each is asked for.

    ``waiting`` items at most are made or in the making while one is used, so that memory does not
    hang on how many there are. What ``make`` raises is raised where its item's turn comes; then,
    and where the iterator is closed, items that wait are not begun.
    """
    if threads < 1:
        yield from map(make, items)
        return
    queue: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            queue.append(pool.submit(make, item))
            if len(queue) > waiting:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
