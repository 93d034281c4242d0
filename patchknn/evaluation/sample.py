"""A few items of a stream of unknown length, evenly spread over it."""

from __future__ import annotations

from typing import Generic, TypeVar

Item = TypeVar("Item")


class EvenSample(Generic[Item]):
    """Keeps every 2^j-th item, j growing with the stream, so that memory does not."""

    def __init__(self, count: int) -> None:
        self.seen = 0
        self._count = count
        self._kept: list[Item] = []
        self._step = 1

    def add(self, item: Item) -> None:
        """Take the next item of the stream."""
        if self.seen % self._step == 0:
            if len(self._kept) == 2 * self._count:
                self._kept = self._kept[::2]
                self._step *= 2
            if self.seen % self._step == 0:
                self._kept.append(item)
        self.seen += 1

    def items(self) -> list[Item]:
        """At most ``count`` of the items so far, in their order: all where there are so few."""
        kept = len(self._kept)
        if kept <= self._count:
            return list(self._kept)
        return [self._kept[number * kept // self._count] for number in range(self._count)]
