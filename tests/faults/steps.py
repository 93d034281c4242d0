"""The steps by which a process changes an archive, counted; at one of them something happens.

Python announces them itself (``sys.addaudithook``), whichever library takes them: nothing of the
archive's code is replaced. Only what is not announced is wrapped: ``os.fsync``,
``os.fdatasync`` and ``os.pwrite``, of which half is written before it happens.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NoReturn

_CHANGES = frozenset({"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"})
_GROWS = frozenset({"open", "os.mkdir", "os.rename", "os.link", "sync", "write"})
_count = 0


def counted() -> int:
    """How many steps there were since ``arm``."""
    return _count


def some(steps: int, random: Random, most: int) -> list[int]:
    """The numbers of all steps, or of ``most`` of them and the last."""
    every = range(1, steps + 1)
    return list(every) if steps <= most else sorted({*random.sample(every, most), steps})


def arm(path: Path, *, what: str, at: int, lasting: bool = True) -> None:
    """Count the steps below ``path``; at number ``at`` (from 1 on) this happens.

    ``what``: ``kill`` ends the process before the step is taken; ``full`` refuses the step for
    want of room, as it does all later ones that need room where ``lasting``. With ``at`` 0 they
    are only counted.
    """
    inside = str(path) + os.sep

    def take(step: str) -> None:
        global _count  # noqa: PLW0603  a hook cannot be taken away: there is one
        _count += 1
        if not at or _count < at or (_count > at and not lasting):
            return
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif step in _GROWS:
            _refuse(step)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            # With a folder's descriptor names are relative: only rmtree gives one.
            if _is_inside(arguments[0], inside) or not _is_absolute(arguments[0]):
                take(event)
        elif event == "open":
            name, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and _is_inside(name, inside):
                take(event)

    def syncing(usual: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            take("sync")
            usual(descriptor)

        return sync

    usual_write = os.pwrite

    def write(descriptor: int, data: memoryview, offset: int) -> int:
        usual_write(descriptor, data[: len(data) // 2], offset)
        take("write")
        return usual_write(descriptor, data, offset)

    os.fsync, os.fdatasync, os.pwrite = syncing(os.fsync), syncing(os.fdatasync), write
    sys.addaudithook(heard)


def _is_inside(name: object, inside: str) -> bool:
    return isinstance(name, str | bytes | os.PathLike) and os.fsdecode(name).startswith(inside)


def _is_absolute(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike) and os.fsdecode(name).startswith(os.sep)


def _refuse(step: str) -> NoReturn:
    # As the system says it: a name where there is one is put in by those who call.
    raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({step})")
