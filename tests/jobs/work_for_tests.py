"""Work that spawned processes can import."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from patchknn.errors import ConflictError, InputError, StoppedError
from patchknn.jobs.units import Outcome


def act(unit):
    """Do what the payload names."""
    kind, _, argument = unit.payload.partition(":")
    if kind == "bad":
        message = f"{unit.name} is bad."
        raise InputError(message)
    if kind == "conflict":
        message = f"{unit.name} is another's."
        raise ConflictError(message)
    if kind == "once" and not Path(argument).exists():
        Path(argument).touch()
        raise OSError(errno.EIO, "Input/output error", unit.name)
    if kind == "gone":
        raise FileNotFoundError(errno.ENOENT, "No such file", unit.name)
    if kind == "bug":
        raise KeyError(unit.name)
    if kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device", unit.name)
    if kind == "stop":
        message = "stopped."
        raise StoppedError(message)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "swallow":  # as libraries do
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except Exception:  # noqa: BLE001
            pass
    if kind == "wait":
        try:
            Path(argument).write_text("here")  # a FIFO: returns once the test has read it
            signal.pause()
        except Exception:  # noqa: BLE001
            pass
    if kind == "hang":
        Path(argument, "started").write_text(str(os.getpid()))
        Path(argument, "go").read_text()  # which nobody writes to
    if kind == "touch":
        with Path(argument, unit.name).open("x"):
            pass
    return Outcome(unit.name, "done", count=os.getpid())
