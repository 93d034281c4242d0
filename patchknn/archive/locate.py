"""From patch ids to rows, for one id or a million."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchknn.archive.shard import Shard
from patchknn.archive.strings import name_key

_WITH_POSITION = re.compile(r"(.+)@(-?[0-9]{1,19})_(-?[0-9]{1,19})", re.DOTALL)
_PLAIN = (-1, -1)


def locate_rows(shards: Sequence[Shard], identities: Sequence[str]) -> npt.NDArray[np.int64]:
    """Rows (m,) int64 of patch ids in the snapshot that the shards make up, −1 for unknown ones.

    ``name@x_y`` is a patch of a slide, or else a plain image that happens to be called so.
    """
    rows = np.full(len(identities), -1, np.int64)
    names, positions, owners = [], [], []
    for number, identity in enumerate(identities):
        match = _WITH_POSITION.fullmatch(identity)
        if match:
            names.append(match[1])
            positions.append((int(match[2]), int(match[3])))
            owners.append(number)
        names.append(identity)
        positions.append(_PLAIN)
        owners.append(number)
    keys = np.array([name_key(name) for name in names], np.uint64)
    for shard in shards:
        place = np.searchsorted(shard.source_keys, keys)
        place[place == shard.n_sources] = 0
        wanted: dict[int, list[int]] = {}
        for hit in np.flatnonzero(shard.source_keys[place] == keys).tolist():
            source = shard.source_number(names[hit], int(keys[hit]))
            if source is not None:
                wanted.setdefault(source, []).append(hit)
        if wanted:
            _fill(shard, wanted, positions, owners, rows)
    return rows


def _fill(
    shard: Shard,
    wanted: dict[int, list[int]],
    positions: list[tuple[int, int]],
    owners: list[int],
    rows: npt.NDArray[np.int64],
) -> None:
    is_wanted = np.zeros(shard.n_sources, bool)
    is_wanted[list(wanted)] = True
    # One pass over the source column finds the rows of all wanted sources.
    candidates = np.flatnonzero(is_wanted[shard.source])
    sources = shard.source[candidates]
    order = np.argsort(sources, kind="stable")
    candidates, sources = candidates[order], sources[order]
    for number, hits in wanted.items():
        start, stop = np.searchsorted(sources, [number, number + 1])
        own = candidates[start:stop]
        at = dict(zip(map(tuple, shard.coords[own].tolist()), own.tolist(), strict=True))
        for hit in hits:
            local = at.get(positions[hit])
            if local is not None and rows[owners[hit]] < 0:
                rows[owners[hit]] = shard.first_row + local
