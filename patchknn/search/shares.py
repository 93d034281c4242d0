"""An archive in shares that several processes search, each of which opens its own.

A share is a set of shards and not of index segments: whoever opens it sees what index there is by
then, and whatever that is, shares have no row in common and none is left out.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.errors import ConflictError, InputError

# Calls a function that can be imported by name for each item, here or elsewhere, in their order.
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
_SNAPSHOTS = 2  # that a process keeps open
# What a process opens is used by one task at a time: threads within it serve the kernels.
ONE_AT_A_TIME = threading.Lock()


class Share(NamedTuple):
    """Some shards of a snapshot, by which another process finds them.

    ``nonce`` tells the snapshot from another of the same ``number``; ``places`` are the shards'
    in the snapshot, ascending, as the bytes of int64.
    """

    archive: Path
    archive_id: str
    number: int
    nonce: str
    places: bytes

    @property
    def n_shards(self) -> int:
        """How many shards it holds."""
        return len(self.places) // 8


def shares_of(snapshot: Snapshot, count: int) -> list[Share]:
    """The snapshot in ``count`` shares of about as many rows each, fewer where it has fewer parts.

    The shards of an index segment stay together, so that it serves them.
    """
    firsts = snapshot.shards.first_rows
    cover = snapshot.cover
    units: list[tuple[int, str, npt.NDArray[np.int64]]] = [
        (segment.n_rows, segment.folder.name, np.searchsorted(firsts, segment.shards.first_rows))
        for segment in cover.segments
    ]
    units += [
        (shard.n, shard.uuid, np.searchsorted(firsts, [shard.first_row])) for shard in cover.bare
    ]
    rows = [0] * max(1, count)
    held: list[list[npt.NDArray[np.int64]]] = [[] for _ in rows]
    # The largest first, each to whoever has least: no share is far above the mean.
    for n_rows, _, places in sorted(units, key=lambda unit: (-unit[0], unit[1])):
        least = rows.index(min(rows))
        rows[least] += n_rows
        held[least].append(places)
    manifest, archive_id = snapshot.manifest, snapshot.settings.archive_id
    return [
        Share(
            snapshot.path.absolute(),
            archive_id,
            manifest.number,
            manifest.nonce,
            np.sort(np.concatenate(places)).astype(np.int64).tobytes(),
        )
        for places in held
        if places
    ]


def open_share(share: Share) -> Snapshot:
    """The share as a snapshot.

    Raises InputError where there is no such snapshot to be seen from here, ConflictError where it
    is another one.
    """
    snapshot = _snapshot(share.archive, share.archive_id, share.number, share.nonce)
    return snapshot.share(np.frombuffer(share.places, np.int64))


@lru_cache(maxsize=_SNAPSHOTS)
def _snapshot(path: Path, archive_id: str, number: int, nonce: str) -> Snapshot:
    try:
        settings = read_settings(path)
        # Whoever made the shares has looked at every file; a share needs some of them.
        snapshot = open_snapshot(path, settings, at=number, check=False)
    except InputError as error:
        message = (
            f"{platform.node()} cannot search its share of {path}: {error} Every machine must see "
            "the archive under this path."
        )
        raise InputError(message) from None
    if (settings.archive_id, snapshot.manifest.nonce) != (archive_id, nonce):
        message = (
            f"{platform.node()} sees another snapshot {number} of {path} than the one that is "
            "searched: every machine must see the same archive under this path."
        )
        raise ConflictError(message)
    return snapshot
