"""Where the time of an ``embed`` goes: what each stage took, and how long it waited."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["preparing", "waiting", "copying", "forward", "taking", "writing", "indexing"]
Limit = Literal["preparing", "reading", "encoder", "archive", "nothing"]


@dataclass
class Work:
    """Seconds that something was busy, and patches that it dealt with."""

    seconds: float = 0.0
    patches: int = 0

    def add(self, seconds: float, patches: int = 0) -> None:
        """One piece of work more."""
        self.seconds += seconds
        self.patches += patches

    @property
    def rate(self) -> float | None:
        """Patches a second while it was busy."""
        return self.patches / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class Figures:
    """What an embedding took, over ``seconds`` from its first step to its last.

    ``stages`` are of this process, one after the other: *preparing* (tile sets read, tissue
    found), *waiting* for readers, *copying* to a GPU and *forward* (on a GPU both beside the
    others), *taking* rows in, *writing* and publishing shards, *indexing*. ``readers`` are the
    reader processes by their ids; without any, this process reads while it waits.
    """

    seconds: float
    stages: dict[Stage, Work]
    readers: dict[int, Work]

    @property
    def reading(self) -> Work:
        """Of all readers together."""
        return Work(
            sum(work.seconds for work in self.readers.values()),
            sum(work.patches for work in self.readers.values()),
        )

    def busy(self, stage: Stage) -> float:
        """Share of the time that a stage took, 0 to 1."""
        return self._share(self.stages[stage].seconds)

    def busy_readers(self) -> float:
        """Share of the time that a reader was busy, on average."""
        return self._share(self.reading.seconds / max(len(self.readers), 1))

    def limit(self) -> Limit:
        """What the rest waited for most."""
        shares: dict[Limit, float] = {
            "reading": self.busy("waiting"),
            "encoder": self.busy("forward") + self.busy("copying"),
            "preparing": self.busy("preparing"),
            "archive": self.busy("taking") + self.busy("writing") + self.busy("indexing"),
        }
        if not self.stages["forward"].patches:
            return "nothing"
        return max(shares, key=lambda name: shares[name])

    def _share(self, seconds: float) -> float:
        return min(max(seconds / self.seconds, 0.0), 1.0) if self.seconds > 0 else 0.0


@dataclass
class Stopwatch:
    """Takes the figures down; a few clock readings a batch, so that it may always run."""

    stages: dict[Stage, Work] = field(
        default_factory=lambda: {
            "preparing": Work(),
            "waiting": Work(),
            "copying": Work(),
            "forward": Work(),
            "taking": Work(),
            "writing": Work(),
            "indexing": Work(),
        }
    )
    readers: dict[int, Work] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @contextmanager
    def time(self, stage: Stage, patches: int = 0) -> Iterator[None]:
        """Count what is done within to a stage; not to be nested."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[stage].add(time.perf_counter() - started, patches)

    def read(self, reader: int, seconds: float, patches: int) -> None:
        """A batch that a reader, called by its process id, has read."""
        self.readers.setdefault(reader, Work()).add(seconds, patches)

    def figures(self) -> Figures:
        """What was taken down so far."""
        return Figures(time.perf_counter() - self.began, self.stages, self.readers)
