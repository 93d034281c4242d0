"""The shards that a manifest names: thousands of them, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self, overload

_MOST = 1 << 32  # rows of a shard, whose bytes are no more


class ShardEntry(NamedTuple):
    """One live shard: rows, sources not counted by an earlier shard, checksum of its JSON."""

    uuid: str
    rows: int
    sources: int
    checksum: str


class ShardList(Sequence[ShardEntry]):
    """Shards in their order; ``uuid``, ``rows``, ``sources`` and ``checksum`` of all of them.

    By column: an object for each of five thousand takes longer than all else that a writer does.
    """

    uuid: list[str]
    rows: list[int]
    sources: list[int]
    checksum: list[str]

    def __init__(self, entries: Iterable[ShardEntry] = ()) -> None:
        self._set(list(zip(*entries, strict=True)) or [(), (), (), ()])

    @classmethod
    def from_json(cls, value: Any) -> ShardList:
        """As a manifest has them; TypeError or KeyError where that makes no sense.

        Up to format 2 it was a list of objects.
        """
        if isinstance(value, list):
            return cls([ShardEntry(**entry) for entry in value])
        columns = [value[name] for name in ShardEntry._fields]
        if not all(isinstance(column, list) for column in columns) or len({*map(len, columns)}) > 1:
            message = "shards are columns of one length"
            raise TypeError(message)
        return cls()._set(columns)

    def as_json(self) -> dict[str, list[Any]]:
        """The columns by name."""
        return dict(zip(ShardEntry._fields, self._columns(), strict=True))

    def followed_by(self, entries: Iterable[ShardEntry]) -> ShardList:
        """These, then others."""
        pairs = zip(self._columns(), ShardList(entries)._columns(), strict=True)
        return ShardList()._set([own + more for own, more in pairs])

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Where in the list a shard is, by uuid."""
        return dict(zip(self.uuid, range(len(self)), strict=True))

    @property
    def is_plausible(self) -> bool:
        """Whether counts are counts, uuids and checksums such, and no shard is there twice."""
        counts = (*self.rows, *self.sources)
        return (
            set(map(type, counts)) <= {int}
            and min(self.rows, default=1) > 0
            and min(self.sources, default=0) >= 0
            and max(counts, default=0) < _MOST
            and are_hexadecimal(self.uuid, 32)
            and are_hexadecimal(self.checksum, 64)
            and len(set(self.uuid)) == len(self)
        )

    def __len__(self) -> int:
        return len(self.uuid)

    @overload
    def __getitem__(self, at: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, at: slice) -> ShardList: ...
    def __getitem__(self, at: int | slice) -> ShardEntry | ShardList:
        """One entry, or a list of some."""
        if isinstance(at, slice):
            return ShardList(list(self)[at])
        return ShardEntry(self.uuid[at], self.rows[at], self.sources[at], self.checksum[at])

    def __iter__(self) -> Iterator[ShardEntry]:
        return map(ShardEntry, *self._columns())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardList) and self._columns() == other._columns()

    def __hash__(self) -> int:
        return hash((*self.uuid, *self.checksum))

    def _set(self, columns: Sequence[Sequence[Any]]) -> Self:
        self.uuid, self.rows, self.sources, self.checksum = map(list[Any], columns)
        return self

    def _columns(self) -> tuple[list[Any], ...]:
        return self.uuid, self.rows, self.sources, self.checksum


def are_hexadecimal(texts: Sequence[Any], digits: int) -> bool:
    """Whether all are hexadecimal of so many digits; at once, for there may be thousands."""
    if not set(map(type, texts)) <= {str} or not set(map(len, texts)) <= {digits}:
        return False
    text = "".join(texts)
    try:
        return bytes.fromhex(text).hex() == text
    except ValueError:
        return False
