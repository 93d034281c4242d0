"""Threads that stay: searches take microseconds, starting a thread takes many.

To wake one takes a tenth of a millisecond or more, and so does each hand-over of the interpreter
between two: the calling thread does its share at once, and the kernels keep a thread until nothing
is left to do.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_SMALLEST_SHARE = 64  # queries
_MOST_THREADS = 256  # each has room of its own in a batch; few machines have more processors

Block = TypeVar("Block", bound=npt.NDArray[Any])
Task = TypeVar("Task")
Result = TypeVar("Result")


def clipped(threads: int) -> int:
    """So many threads, but at least one and no more than are of use."""
    return max(1, min(threads, _MOST_THREADS))


class _Share:
    """What another thread is asked to do, which is called off where it has not begun in time."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._ticket = deque([None])  # whoever takes it decides
        self._ended = threading.Lock()
        self._ended.acquire()
        self._error: BaseException | None = None

    def do(self) -> None:
        """In the other thread."""
        if self._take():
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
                self._error = error
            finally:
                self._ended.release()

    def end(self) -> BaseException | None:
        """In the thread that asked: wait for what has begun; its error, if any."""
        if not self._take():
            self._ended.acquire()
        return self._error

    def _take(self) -> bool:
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True


class _Helper:
    """A thread that waits for shares: it is woken in a sixth of a ThreadPoolExecutor's time."""

    def __init__(self) -> None:
        self._share: _Share | None = None
        self._wake = threading.Lock()
        self._wake.acquire()
        threading.Thread(target=self._serve, name="patchknn", daemon=True).start()

    def give(self, share: _Share) -> None:
        """Let it do a share, and wait for the next then."""
        self._share = share
        self._wake.release()

    def _serve(self) -> None:
        while True:
            self._wake.acquire()
            share, self._share = self._share, None
            if share is not None:
                share.do()
            del share
            _idle.append(self)


_idle: deque[_Helper] = deque()
os.register_at_fork(after_in_child=_idle.clear)  # threads do not live on in a child


def _helper() -> _Helper:
    try:
        return _idle.pop()
    except IndexError:
        return _Helper()


def share_out(threads: int, work: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """``work`` of each task, in order, by this thread and up to ``threads`` - 1 others.

    This one does not wait for others to wake up: what takes less than that is done by then. Raises
    what ``work`` raises, once all have stopped.
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

    others = [_Share(take) for _ in range(min(clipped(threads), len(left)) - 1)]
    for other in others:
        _helper().give(other)
    try:
        take()
    finally:
        errors = [other.end() for other in others]
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
