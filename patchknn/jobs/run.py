"""Units of work, one by one, in this process or in several worker processes.

A worker that dies (a reader that crashes on one slide, a memory limit) costs its unit, never the
batch. Several such runs may share the units through a folder of claims.
"""

from __future__ import annotations

import errno
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from patchknn.errors import PatchknnError, StoppedError
from patchknn.jobs.claims import Claims

Payload = TypeVar("Payload")
Status = Literal["done", "skipped", "empty", "failed", "planned"]

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of one unit; ``detail`` says more, and why where it failed.

    ``count``: how many things the unit gave, such as tiles. ``held``: another process has it.
    """

    unit: str
    status: Status
    detail: str = ""
    count: int | None = None
    held: bool = False


@dataclass(frozen=True)
class Unit(Generic[Payload]):
    """A piece of work that one process does: a name that is unique, and what the work needs."""

    name: str
    payload: Payload


Work = Callable[[Unit[Payload]], Outcome]


def run_units(
    units: Sequence[Unit[Payload]],
    work: Work[Payload],
    *,
    claims_folder: Path | None = None,
    workers: int = 1,
) -> Generator[Outcome, None, None]:
    """Do each unit once and yield its outcome as it comes; order is kept with one worker.

    ``work`` is called after the unit is claimed, and must itself find out whether the unit was
    done before. With ``workers`` > 1 it runs in spawned processes, so it and the payloads must be
    picklable. A PatchknnError, OSError or other exception is that unit's failure; a full disk, a
    read-only one and StoppedError end the run. Units that a living process elsewhere has are
    looked at again in the end, then given up as skipped.
    """
    count = min(workers, len(units))
    waiting = list(units)
    run = _run_here if count <= 1 else _run_in_workers
    for attempt in ("first", "last"):
        held = {}
        by_name = {unit.name: unit for unit in waiting}
        for outcome in run(waiting, work, claims_folder, count):
            if outcome.held and attempt == "first":
                held[outcome.unit] = by_name[outcome.unit]
            else:
                yield outcome
        waiting = list(held.values())
        if not waiting:
            return


def _run_here(
    units: Sequence[Unit[Payload]], work: Work[Payload], folder: Path | None, _count: int
) -> Generator[Outcome, None, None]:
    with ExitStack() as stack:
        claims = stack.enter_context(Claims(folder)) if folder is not None else None
        stops = stack.enter_context(_Stops())
        for unit in units:
            outcome = _attempt(unit, work, claims)
            stops.check()
            yield outcome


def _attempt(unit: Unit[Payload], work: Work[Payload], claims: Claims | None) -> Outcome:
    if claims is None:
        return _guarded(unit, work)
    if not claims.claim(unit.name):
        holder = claims.holder(unit.name) or "another process"
        return Outcome(unit.name, "skipped", f"in the hands of {holder}", held=True)
    try:
        return _guarded(unit, work)
    finally:
        claims.release(unit.name)


def _guarded(unit: Unit[Payload], work: Work[Payload]) -> Outcome:
    try:
        return work(unit)
    except PatchknnError as error:
        return Outcome(unit.name, "failed", str(error))
    except OSError as error:
        if error.errno in _FATAL:
            raise
        thing = f"{error.filename}: " if error.filename else f"{unit.name}: "
        return Outcome(unit.name, "failed", f"{thing}{error.strerror or error}.")
    except MemoryError:
        return Outcome(unit.name, "failed", f"{unit.name} needs more memory than there is.")
    except Exception as error:  # noqa: BLE001  one unit must not end the batch
        reason = f"{unit.name}: unexpected {type(error).__name__}: {error}; please report it."
        return Outcome(unit.name, "failed", reason)


class _Worker(Generic[Payload]):
    """One spawned process and the unit that it has in hand."""

    def __init__(self, work: Work[Payload], folder: Path | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, work, folder), daemon=True
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

    def end(self) -> None:
        self.connection.close()


def _run_in_workers(
    units: Sequence[Unit[Payload]], work: Work[Payload], folder: Path | None, count: int
) -> Generator[Outcome, None, None]:
    pending = deque(units)
    workers: list[_Worker[Payload]] = []
    try:
        workers += [_Worker(work, folder) for _ in range(min(count, len(pending)))]
        for worker in workers:
            worker.give(pending.popleft())
        while busy := {w.connection: w for w in workers if w.unit is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                unit = worker.unit
                outcome = worker.take()
                if outcome is None and unit is not None:
                    outcome = Outcome(unit.name, "failed", _epitaph(unit, worker.process))
                    workers.remove(worker)
                    worker.end()
                    if pending:
                        worker = _Worker(work, folder)
                        workers.append(worker)
                if pending and worker in workers:
                    worker.give(pending.popleft())
                if outcome is not None:
                    yield outcome
        for worker in workers:
            worker.end()
    except BaseException:
        for worker in workers:
            worker.process.terminate()
            worker.end()  # or one that has just finished its unit would wait for another
        raise
    finally:
        for worker in workers:
            worker.process.join(_STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _epitaph(unit: Unit[Payload], process: SpawnProcess) -> str:
    process.join(_STOP_SECONDS)
    code = process.exitcode or 0
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = "; is there enough memory?" if cause == "SIGKILL" else "."
    return f"{unit.name}: the process that worked on it died ({cause}){hint}"


def _serve(connection: Connection, work: Work[Payload], folder: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with ExitStack() as stack:
            claims = stack.enter_context(Claims(folder)) if folder is not None else None
            stops = stack.enter_context(_Stops())
            while True:
                answer: Outcome | OSError
                unit = connection.recv()
                try:
                    answer = _attempt(unit, work, claims)
                except OSError as error:
                    answer = OSError(error.errno, error.strerror, error.filename)
                connection.send(answer)
                stops.check()
    except (StoppedError, EOFError, OSError):  # asked to end, or the parent has no more or is gone
        return


def _stop(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is tidying up
    message = "stopped by a signal."
    raise StoppedError(message)


class _Stops:
    """Remembers that SIGTERM came: libraries swallow whatever a handler raises inside them."""

    def __init__(self) -> None:
        self._usual: Any = None
        self._error: StoppedError | None = None

    def __enter__(self) -> Self:
        usual = signal.getsignal(signal.SIGTERM)
        if callable(usual) and threading.current_thread() is threading.main_thread():
            self._usual = usual
            signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        if self._usual is not None and self._error is None:
            signal.signal(signal.SIGTERM, self._usual)

    def check(self) -> None:
        """Raise the StoppedError that the handler raised, if it did."""
        if self._error is not None:
            raise self._error

    def _notice(self, number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is tidying up
        try:
            self._usual(number, frame)
        except StoppedError as error:
            self._error = error
            raise


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    # Ctrl-C reaches the whole group; a worker that still starts up would answer with a traceback.
    try:
        usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
