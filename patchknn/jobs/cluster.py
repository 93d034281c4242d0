"""Dask: the same units on the workers of a cluster, and functions mapped over them.

What is sent must be importable on the workers, and is pickled on its way. A worker that is lost
costs nothing but time: what it had in hand is done by another. Dask gives a task up after it has
lost several workers with it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from patchknn.errors import PatchknnError
from patchknn.jobs.cpus import available_cpus
from patchknn.jobs.units import Outcome, Payload, Unit, Work, guarded

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT = 2  # tasks per thread of a worker: one is worked on, and the next is there


class Cluster:
    """Workers that do units, and functions of items."""

    def __init__(self, client: Client, where: str) -> None:
        self.client = client
        self._where = where

    @property
    def workers(self) -> int:
        """How many there are now."""
        return len(self.client.nthreads())

    @property
    def room(self) -> int:
        """How many tasks it has use for at a time; workers may come and go."""
        threads: int = sum(self.client.nthreads().values())
        return _IN_FLIGHT * max(threads, 1)

    @cached_property
    def threads_of_a_task(self) -> int:
        """How many threads a task may use, whichever of the workers does it."""
        tasks = self.client.nthreads()
        cpus = self.client.run(_cpus)
        return max(min((cpus[one] // tasks[one] for one in cpus if one in tasks), default=1), 1)

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
                waiting.append(self.client.submit(function, item, pure=False, **at))
                while len(waiting) >= self.room:
                    yield self.result(waiting.popleft())
            while waiting:
                yield self.result(waiting.popleft())
        finally:
            self.cancel(list(waiting))

    def _at(self, number: int, parts: int) -> dict[str, Any]:
        addresses = sorted(self.client.nthreads())
        parts = min(parts, len(addresses))
        if not parts:
            return {}
        return {"workers": addresses[number % parts :: parts], "allow_other_workers": True}

    def result(self, future: Future) -> Any:
        """What came of a future; errors as of ``map``."""
        from distributed import CancelledError, KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            message = f"{_lost(error)} Is there enough memory for them?"
            raise PatchknnError(message) from None
        except (CancelledError, TimeoutError):
            raise self._gone() from None
        except OSError as error:
            if error.errno is not None:  # a worker's own, such as of a full disk
                raise
            raise self._gone() from None

    def cancel(self, futures: list[Future]) -> None:
        """Give tasks up; nothing happens where the scheduler is gone."""
        try:
            if futures:
                self.client.cancel(futures)
        except (OSError, RuntimeError, TimeoutError):
            return

    def _gone(self) -> PatchknnError:
        message = (
            f"--dask {self._where}: the scheduler is gone; what was finished is kept, run the same "
            "command to go on."
        )
        return PatchknnError(message)


class DaskEngine(Generic[Payload]):
    """Does units on a cluster; as Engine."""

    def __init__(self, cluster: Cluster, work: Work[Payload]) -> None:
        from distributed import as_completed

        self._cluster = cluster
        self._work = work
        self._units: dict[str, Unit[Payload]] = {}
        self._futures: dict[str, Future] = {}
        self._completed = as_completed(loop=cluster.client.loop)

    @property
    def capacity(self) -> int:
        """As Engine."""
        return self._cluster.room

    def give(self, unit: Unit[Payload]) -> None:
        """As Engine."""
        future = self._cluster.client.submit(_do, unit, self._work, pure=False)
        self._units[future.key], self._futures[future.key] = unit, future
        self._completed.add(future)

    def finished(self) -> list[tuple[Unit[Payload], Outcome]]:
        """As Engine; PatchknnError where the scheduler is gone."""
        from distributed import KilledWorker

        future = next(self._completed)
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


def _do(unit: Unit[Payload], work: Work[Payload]) -> Outcome:
    return guarded(unit, work)


def _cpus() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    allowed = int(given) if given.isdigit() and int(given) else available_cpus()
    return min(allowed, available_cpus())


def _lost(error: Any) -> str:
    return f"the workers that had it died, {error.allowed_failures + 1} of them."
