"""Many texts as two plain arrays: their UTF-8 bytes one after the other, and where each begins.

A million plain images are a million sources: their names must cost nothing to open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt


class StringTable:
    """S texts over memory-mapped bytes (B,) uint8 and offsets (S + 1,) int64."""

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self._data = data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> str:
        return decode(self.raw(number))

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))

    def take(self, numbers: npt.NDArray[np.integer[Any]]) -> list[str]:
        """The entries of these numbers (m,), faster than one by one."""
        data = self._data.data
        starts, stops = self._offsets[numbers].tolist(), self._offsets[numbers + 1].tolist()
        return [decode(bytes(data[a:b])) for a, b in zip(starts, stops, strict=True)]

    def raw(self, number: int) -> bytes:
        """The bytes of one entry; negative numbers count from the end."""
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._data[self._offsets[number] : self._offsets[number + 1]].tobytes()

    def equal_to(self, text: str) -> npt.NDArray[np.int64]:
        """The numbers (m,) of the entries that are ``text``, ascending; vectorised over all."""
        wanted = np.frombuffer(encode(text), np.uint8)
        starts = self._offsets[:-1]
        candidates = np.flatnonzero(np.diff(self._offsets) == len(wanted))
        for position, byte in enumerate(wanted):
            candidates = candidates[self._data[starts[candidates] + position] == byte]
        return candidates.astype(np.int64, copy=False)

    def joined(self) -> bytes:
        """All entries with a zero between them; a zero within one is a blank."""
        data = self._data[: self._offsets[-1]]
        data = np.where(data == 0, np.uint8(ord(" ")), data)
        return np.insert(data, self._offsets[1:-1], 0).tobytes()

    def is_empty(self) -> bool:
        """Whether every entry is the empty text."""
        return bool(self._offsets[-1] == 0)

    def distinct(self) -> set[str]:
        """The different entries."""
        if self.is_empty():
            return {""} if len(self) else set()
        ends = self._offsets.tolist()
        data = self._data.tobytes()
        return {decode(text) for text in {data[start:stop] for start, stop in pairwise(ends)}}


class OptionalStringTable:
    """Like ``StringTable``, an empty entry being None."""

    def __init__(self, table: StringTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> str | None:
        return self._table[number] or None

    def __iter__(self) -> Iterator[str | None]:
        return (text or None for text in self._table)

    def take(self, numbers: npt.NDArray[np.integer[Any]]) -> list[str | None]:
        """As ``StringTable.take``."""
        return [text or None for text in self._table.take(numbers)]

    def equal_to(self, text: str) -> npt.NDArray[np.int64]:
        """As ``StringTable.equal_to``."""
        return self._table.equal_to(text)

    def joined(self) -> bytes:
        """As ``StringTable.joined``."""
        return self._table.joined()

    def all_unknown(self) -> bool:
        """Whether every entry is None; nothing is read for it."""
        return self._table.is_empty()

    def distinct(self) -> set[str | None]:
        """The different entries; nothing is read where all are None."""
        return {text or None for text in self._table.distinct()}


def encode(text: str) -> bytes:
    """UTF-8; names of files that are no valid UTF-8 keep their bytes."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """The inverse of ``encode``; never fails."""
    return data.decode("utf-8", "surrogateescape")


def pack_blobs(blobs: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Blobs → bytes (B + 1,) closed by a zero, and offsets (S + 1,)."""
    offsets = np.zeros(len(blobs) + 1, np.int64)
    np.cumsum([len(blob) for blob in blobs], out=offsets[1:])
    return np.frombuffer(b"".join([*blobs, b"\0"]), np.uint8), offsets


def pack_strings(
    texts: Iterable[str | None],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Texts → bytes and offsets as ``pack_blobs``; None becomes the empty text."""
    return pack_blobs([encode(text or "") for text in texts])


def offsets_fit(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> bool:
    """Whether offsets ascend from 0 and end within the data."""
    ascending = (offsets[1:] >= offsets[:-1]).all()
    return bool(offsets[0] == 0 and offsets[-1] <= len(data) and ascending)


def name_key(name: str) -> int:
    """The first 8 bytes of a name's SHA-256, big-endian: finds a name among millions."""
    return int.from_bytes(hashlib.sha256(encode(name)).digest()[:8], "big")
