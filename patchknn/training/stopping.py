"""A signal asks for an end: the loop ends between two steps, where its state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, NoReturn, Self

from patchknn.errors import StoppedError

_SIGNALS = ("SIGTERM", "SIGUSR1")  # Slurm's --signal=USR1 warns before the time is over


class StopRequest:
    """While entered, SIGTERM and SIGUSR1 are remembered instead of ending the process at once."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether an end was asked for."""
        return self._name is not None

    def end(self) -> NoReturn:
        """Raise StoppedError."""
        by = f" by {self._name}" if self._name else ""  # another process of the run got it
        message = f"stopped{by}; what was trained is kept, run the same command to go on."
        raise StoppedError(message)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._name = signal.Signals(number).name
