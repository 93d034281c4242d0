"""Where units are done: in this process, or by worker processes of it.

A worker that dies (a reader that crashes on one slide, a memory limit) costs its unit, never the
batch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, Protocol, Self

from patchknn.errors import StoppedError
from patchknn.jobs.units import Outcome, Payload, Unit, Work, guarded

_STOP_SECONDS = 10.0


class Engine(Protocol[Payload]):
    """Does units, as many as ``capacity`` at a time; a context manager.

    Left by an exception, it ends at once and what is in hand is given up.
    """

    @property
    def capacity(self) -> int:
        """How many units it can have in hand."""

    def give(self, unit: Unit[Payload]) -> None:
        """Begin a unit; there must be room for it."""

    def finished(self) -> list[tuple[Unit[Payload], Outcome]]:
        """Wait until one or more of the units in hand are done; their outcomes.

        Raises what ends a run: OSError of a full disk, StoppedError.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def local_engine(work: Work[Payload], workers: int) -> Engine[Payload]:
    """This process for up to one worker, else so many spawned ones.

    For those the work and the payloads must be picklable.
    """
    return InThisProcess(work) if workers <= 1 else WorkerProcesses(work, workers)


class InThisProcess(Generic[Payload]):
    """Does one unit at a time, here."""

    def __init__(self, work: Work[Payload]) -> None:
        self.capacity = 1
        self._work = work
        self._stops = _Stops()
        self._waiting: deque[Unit[Payload]] = deque()

    def give(self, unit: Unit[Payload]) -> None:
        """As Engine."""
        self._waiting.append(unit)

    def finished(self) -> list[tuple[Unit[Payload], Outcome]]:
        """As Engine."""
        unit = self._waiting.popleft()
        outcome = guarded(unit, self._work)
        self._stops.check()
        return [(unit, outcome)]

    def __enter__(self) -> Self:
        self._stops.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stops.__exit__()


class WorkerProcesses(Generic[Payload]):
    """Spawned processes, one unit in the hands of each; they are started as units come."""

    def __init__(self, work: Work[Payload], count: int) -> None:
        self.capacity = count
        self._work = work
        self._workers: list[_Worker[Payload]] = []

    def give(self, unit: Unit[Payload]) -> None:
        """As Engine."""
        worker = next((worker for worker in self._workers if worker.unit is None), None)
        if worker is None:
            worker = _Worker(self._work)
            self._workers.append(worker)
        worker.give(unit)

    def finished(self) -> list[tuple[Unit[Payload], Outcome]]:
        """As Engine."""
        busy = {worker.connection: worker for worker in self._workers if worker.unit is not None}
        outcomes = []
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            unit = worker.unit
            if unit is None:
                continue
            outcome = worker.take()
            if outcome is None:
                outcome = Outcome(unit.name, "failed", _epitaph(unit, worker.process))
                self._workers.remove(worker)
                worker.connection.close()
            outcomes.append((unit, outcome))
        return outcomes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            if error[0] is not None:
                worker.process.terminate()
            worker.connection.close()  # or one that has just finished would wait for another
        for worker in self._workers:
            worker.process.join(_STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


class _Worker(Generic[Payload]):
    """One spawned process and the unit that it has in hand."""

    def __init__(self, work: Work[Payload]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, work), daemon=True
        )
        with _interrupts_ignored():
            self.process.start()
        theirs.close()
        self.unit: Unit[Payload] | None = None

    def give(self, unit: Unit[Payload]) -> None:
        self.unit = unit
        try:
            self.connection.send(unit)
        except OSError:  # it died; that is noticed when its answer is read
            pass

    def take(self) -> Outcome | None:
        """The outcome of the unit in hand; None where the process died over it."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(answer, BaseException):
            raise answer
        self.unit = None
        return answer if isinstance(answer, Outcome) else None


def _epitaph(unit: Unit[Payload], process: SpawnProcess) -> str:
    process.join(_STOP_SECONDS)
    code = process.exitcode or 0
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = "; is there enough memory?" if cause == "SIGKILL" else "."
    return f"{unit.name}: the process that worked on it died ({cause}){hint}"


def _serve(connection: Connection, work: Work[Payload]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):  # Slurm's warning reaches the whole step: the parent heeds it
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with _Stops() as stops:
            while True:
                answer: Outcome | OSError
                unit = connection.recv()
                try:
                    answer = guarded(unit, work)
                except OSError as error:
                    answer = OSError(error.errno, error.strerror, error.filename)
                connection.send(answer)
                stops.check()
    except (StoppedError, EOFError, OSError):  # asked to end, or the parent has no more or is gone
        return


def _end_with_parent() -> None:
    """A parent that was killed holds no claims any more: another process may do the unit by now."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _stop(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is tidying up
    message = "stopped by a signal."
    raise StoppedError(message)


class _Stops:
    """Remembers that a signal came: libraries swallow whatever a handler raises inside them."""

    def __init__(self) -> None:
        self._usual: dict[int, Any] = {}
        self._error: StoppedError | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)
                if number is not None and callable(usual := signal.getsignal(number)):
                    self._usual[number] = usual
                    signal.signal(number, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        if self._error is None:
            for number, usual in self._usual.items():
                signal.signal(number, usual)

    def check(self) -> None:
        """Raise the StoppedError that the handler raised, if it did."""
        if self._error is not None:
            raise self._error

    def _notice(self, number: int, frame: object) -> None:
        for own in self._usual:
            signal.signal(own, signal.SIG_IGN)  # once is enough; what follows is tidying up
        try:
            self._usual[number](number, frame)
        except StoppedError as error:
            # Not that one, which would keep alive whatever it passes through, such as the reader
            # processes of a unit, and these their parent.
            self._error = StoppedError(str(error))
            raise


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    # Ctrl-C reaches the whole group; a worker that still starts up would answer with a traceback.
    names = [getattr(signal, name) for name in ("SIGINT", "SIGUSR1") if hasattr(signal, name)]
    usual: dict[int, Any] = {}
    try:
        for number in names:
            usual[number] = signal.signal(number, signal.SIG_IGN)
    except ValueError:  # not the main thread
        pass
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
