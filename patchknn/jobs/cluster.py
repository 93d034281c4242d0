"""Dask: the same units on the workers of a cluster, and functions mapped over them.

What is sent must be importable on the workers, and is pickled on its way. A worker that is lost
costs nothing but time: what it had in hand is done by another. Dask gives a task up after it has
lost several workers with it.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from patchknn import __version__
from patchknn.errors import ConflictError, PatchknnError
from patchknn.jobs.cpus import available_cpus
from patchknn.jobs.units import Outcome, Payload, Unit, Work, guarded

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_SECONDS = 2.0
_KNOWN_SECONDS = 1.0
_ALONE_SECONDS = 30.0
_IN_FLIGHT = 2  # tasks per thread of a worker: one is worked on, and the next is there


class Cluster:
    """Workers that do units, and functions of items; ``warn`` is told when all of them are lost."""

    def __init__(
        self, client: Client, where: str, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self.client = client
        self._where = where
        self._warn = warn
        self._alone_since: float | None = None
        self._known: tuple[float, dict[str, int]] = (-math.inf, {})

    @property
    def workers(self) -> int:
        """How many there are now."""
        return len(self._threads())

    @property
    def room(self) -> int:
        """How many tasks it has use for at a time; workers may come and go."""
        return _IN_FLIGHT * max(sum(self._threads().values()), 1)

    @cached_property
    def cpus_of_a_worker(self) -> int:
        """How many processors a worker may use, whichever it is."""
        with self._asking():
            return max(min(self.client.run(_cpus).values(), default=1), 1)

    def submit(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Future:
        """Have a function called by a worker."""
        with self._asking():
            return self.client.submit(function, *arguments, pure=False, **options)

    def _threads(self) -> dict[str, int]:
        """Of each worker, by its address; asked for once a second."""
        asked, known = self._known
        if time.monotonic() - asked > _KNOWN_SECONDS:
            with self._asking():
                known = self.client.nthreads()
            self._known = (time.monotonic(), known)
        return known

    @contextmanager
    def _asking(self) -> Iterator[None]:
        # Whatever Dask raises where the scheduler does not answer; its errors have no common base.
        try:
            yield
        except Exception as error:
            raise self._gone() from error

    def engine(self, work: Work[Payload]) -> DaskEngine[Payload]:
        """Its workers as an engine for units."""
        return DaskEngine(self, work)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        home: Callable[[Item], tuple[int, int]] | None = None,
    ) -> Iterator[Result]:
        """The results for items, in order; items are drawn a few ahead of them.

        ``home`` says of an item which of how many parts of the workers does it, as long as they
        are there. Raises what the function raises, PatchknnError where the scheduler is gone or an
        item has cost several workers.
        """
        waiting: deque[Future] = deque()
        try:
            for item in items:
                at = {} if home is None else self._at(*home(item))
                waiting.append(self.submit(function, item, **at))
                while len(waiting) >= self.room:
                    yield self.result(waiting.popleft())
            while waiting:
                yield self.result(waiting.popleft())
        finally:
            self.cancel(list(waiting))

    def _at(self, number: int, parts: int) -> dict[str, Any]:
        addresses = sorted(self._threads())
        parts = min(parts, len(addresses))
        if not parts:
            return {}
        return {"workers": addresses[number % parts :: parts], "allow_other_workers": True}

    def result(self, future: Future) -> Any:
        """What came of a future; errors as of ``map``."""
        from distributed import CancelledError, KilledWorker

        try:
            self._await(future)
            return future.result()
        except KilledWorker as error:
            message = f"{_lost(error)} Is there enough memory for them?"
            raise PatchknnError(message) from None
        except CancelledError:  # as all are when the connection is lost
            raise self._gone() from None
        except (OSError, RuntimeError):
            if self.client.status == "running":  # a worker's own, such as of a full disk
                raise
            raise self._gone() from None

    def _await(self, future: Future) -> None:
        from distributed import wait

        while not future.done():
            try:
                wait([future], timeout=_LOOK_SECONDS)
            except TimeoutError:
                self.look()

    def look(self) -> None:
        """Say, once each time, that for a while there has been no worker; for who waits for one."""
        if self._threads():
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _ALONE_SECONDS:
            self._alone_since = math.inf
            self._warn(
                f"--dask {self._where}: no worker is left; waiting for new ones. What is finished "
                "is kept if you stop this."
            )

    def cancel(self, futures: list[Future]) -> None:
        """Give tasks up; nothing happens where the scheduler is gone.

        Those that a worker has begun, it ends all the same.
        """
        if futures:
            with suppress(Exception):  # of no common base, as above
                self.client.cancel(futures)

    def _gone(self) -> PatchknnError:
        message = (
            f"--dask {self._where}: the scheduler is gone; what was finished is kept, run the same "
            "command to go on."
        )
        return PatchknnError(message)


class DaskEngine(Generic[Payload]):
    """Does units on a cluster; as Engine."""

    def __init__(self, cluster: Cluster, work: Work[Payload]) -> None:
        self._cluster = cluster
        self._work = work
        self._units: dict[str, Unit[Payload]] = {}
        self._futures: dict[str, Future] = {}
        self._completed: SimpleQueue[Future] = SimpleQueue()

    @property
    def capacity(self) -> int:
        """As Engine."""
        return self._cluster.room

    def give(self, unit: Unit[Payload]) -> None:
        """As Engine."""
        future = self._cluster.submit(_do, unit, self._work, __version__)
        self._units[future.key], self._futures[future.key] = unit, future
        future.add_done_callback(self._completed.put)

    def finished(self) -> list[tuple[Unit[Payload], Outcome]]:
        """As Engine; none after a while, since workers that have come may be given units.

        Raises PatchknnError where the scheduler is gone, ConflictError where a worker has another
        version of patchknn.
        """
        from distributed import KilledWorker

        try:
            future = self._completed.get(timeout=_LOOK_SECONDS)
        except Empty:
            self._cluster.look()
            return []
        unit = self._units.pop(future.key)
        del self._futures[future.key]
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                return [(unit, Outcome(unit.name, "failed", f"{unit.name}: {_lost(error)}"))]
        return [(unit, self._cluster.result(future))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.cancel(list(self._futures.values()))


def _do(unit: Unit[Payload], work: Work[Payload], version: str) -> Outcome:
    if version != __version__:  # of a worker that joined later
        message = f"a worker has patchknn {__version__}, and this is {version}; start it anew."
        raise ConflictError(message)
    return guarded(unit, work)


def _cpus() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    allowed = int(given) if given.isdigit() and int(given) else available_cpus()
    return min(allowed, available_cpus())


def _lost(error: Any) -> str:
    return f"the workers that had it died, {error.allowed_failures + 1} of them."
