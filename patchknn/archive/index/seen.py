"""What the segments of an archive have seen of the shards of one snapshot."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.heads import Head, read_heads
from patchknn.archive.opening import Voucher
from patchknn.archive.shard_list import ShardList

Int64 = npt.NDArray[np.int64]
_KEY = 16 + 32  # bytes of uuid and checksum, with which a line begins


class Seen:
    """The heads of all segments, and where in a manifest the shards of each are.

    ``places``: for each head (m,) int64, −1 for a shard that the manifest lacks; ``problems``: a
    sentence for each segment that cannot be used.
    """

    def __init__(self, path: Path, entries: ShardList) -> None:
        self.heads, self.problems = read_heads(path)
        self.places = _places(entries, self.heads)
        self._head = np.full(len(entries), -1)
        self._line = np.full(len(entries), -1)
        for number, places in enumerate(self.places):
            lines = np.flatnonzero(places >= 0)
            self._head[places[lines]] = number
            self._line[places[lines]] = lines

    @property
    def unseen(self) -> Int64:
        """Places in the manifest of the shards that no segment has seen."""
        return np.flatnonzero(self._head < 0)

    def vouchers(self, places: Int64) -> list[Voucher | None]:
        """What is known of the shards at these places (m,) of the manifest."""
        found: list[Voucher | None] = [None] * len(places)
        for number in np.unique(self._head[places]).tolist():
            if number >= 0:
                which = np.flatnonzero(self._head[places] == number)
                known = self.heads[number].vouchers(self._line[places[which]])
                for at, voucher in zip(which.tolist(), known, strict=True):
                    found[at] = voucher
        return found


def _places(entries: ShardList, heads: list[Head]) -> list[Int64]:
    """All at once: of thousands of shards each would take longer than what is done with it.

    Of two shards whose uuids begin alike one is not found, and has no index.
    """
    if not heads or not entries:
        return [np.full(len(head.lines), -1) for head in heads]
    text = "".join(chain.from_iterable(zip(entries.uuid, entries.checksum, strict=True)))
    keys = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, _KEY)
    starts = _starts(keys)
    order = np.argsort(starts)
    result = []
    for head in heads:
        own = head.lines.view(np.uint8).reshape(-1, head.lines.itemsize)[:, :_KEY]
        at = np.searchsorted(starts[order], _starts(own)).clip(max=len(order) - 1)
        places = order[at]
        result.append(np.where((keys[places] == own).all(axis=1), places, -1))
    return result


def _starts(keys: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]
