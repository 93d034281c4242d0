"""Features on their way from a device, so that a GPU works while Python does something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch


class DeviceSeconds(NamedTuple):
    """What a batch took: to be copied to the device, and to be turned into features."""

    copy: float
    forward: float


_NOTHING = DeviceSeconds(0, 0)


class Marks:
    """Points in the work of a GPU, noted without waiting for them."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Note that everything asked for so far is done here."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        self._events.append(event)

    def wait(self) -> None:
        """Until the last mark is reached."""
        self._events[-1].synchronize()

    def seconds(self) -> list[float]:
        """From each mark to the next; all must have been reached."""
        pairs = zip(self._events, self._events[1:], strict=False)
        return [first.elapsed_time(second) / 1e3 for first, second in pairs]


@dataclass(frozen=True)
class Pending:
    """Features (B, D) float32 in host memory, there once the last of ``marks`` is reached.

    ``marks`` stand at the start, after the copy to the device, and at the end; without them the
    features are there already, and took ``taken``.
    """

    features: npt.NDArray[np.float32]
    taken: DeviceSeconds = _NOTHING
    marks: Marks | None = None

    def result(self) -> npt.NDArray[np.float32]:
        """Wait for the features (B, D)."""
        if self.marks is not None:
            self.marks.wait()
        return self.features

    def seconds(self) -> DeviceSeconds:
        """What the batch took, once its result is there."""
        return self.taken if self.marks is None else DeviceSeconds(*self.marks.seconds())
