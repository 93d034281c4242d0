"""Steps that a signal must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1")  # the last by Slurm, and not everywhere
    if hasattr(signal, name)
]


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold SIGTERM, SIGINT and SIGUSR1 back until the step is done, then let them act.

    Outside the main thread, where Python delivers no signals, nothing needs to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        arrived.append(number)

    usual = {name: signal.signal(name, note) for name in _NAMES}
    try:
        yield
    finally:
        for name, handler in usual.items():
            signal.signal(name, handler)
        for number in arrived:
            signal.raise_signal(number)
