"""Write the sketches of a segment's features by position, where they help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.array_files import ArrayFile, write_array
from patchknn.archive.index.layout import ArrayRecord, array_file
from patchknn.archive.index.segment import Segment
from patchknn.archive.index.sketch_donor import Donor
from patchknn.archive.mapping import map_array
from patchknn.archive.shard import Shard
from patchknn.hamming.sketch import WIDTH, fit_projection

_SAMPLE_ROWS = 8192
_BLOCK_POSITIONS = 1 << 20  # 64 MB of sketches


@dataclass(frozen=True)
class _Run:
    """Rows ``start`` to ``stop`` of a shard, in this order at the block's ``places`` (m,)."""

    shard: int
    start: int
    stop: int
    places: npt.NDArray[np.int64]


def write_sketches(
    folder: Path, shards: Sequence[Shard], donor: Segment | None = None
) -> tuple[dict[str, ArrayRecord], dict[str, float] | None]:
    """Write them where they help: the arrays, and scale and slack; nothing and None otherwise.

    In ``folder``, where ``write_codes`` was before. Those of ``donor``, a segment with most of
    these rows, are taken over with its projection: to make them anew reads every feature.
    """
    first_rows: npt.NDArray[np.int64] = np.cumsum([0, *map(len, shards)])
    uuids = [shard.uuid for shard in shards]
    given = Donor.of(donor, uuids, first_rows) if donor is not None else None
    projection = fit_projection(_sample(shards)) if given is None else given.projection
    if projection is None:
        return {}, None
    slack = 0.0 if given is None else given.slack
    with ArrayFile(folder, "sketch", "<f2", (WIDTH,)) as file:
        for rows in _blocks(folder, int(first_rows[-1]), len(shards)):
            runs = list(_runs(rows, first_rows))
            values = np.empty((len(rows), WIDTH), np.float16)
            missing = np.ones(len(rows), bool)
            if given is not None:
                owners = np.empty(len(rows), np.int64)
                for run in runs:
                    owners[run.places] = run.shard
                missing[given.fill(values, rows, owners)] = False
            for run in runs:
                if missing[run.places].any():
                    features = shards[run.shard].features[run.start : run.stop]
                    values[run.places], own = projection.bounded_sketch(features)
                    slack = max(slack, own)
            file.append(values)
        arrays = {"sketch": file.record}
    arrays["projection_mean"] = write_array(folder, "projection_mean", projection.mean)
    arrays["projection_matrix"] = write_array(folder, "projection_matrix", projection.matrix)
    return arrays, {"scale": projection.scale, "slack": slack}


def _blocks(folder: Path, n_rows: int, n_shards: int) -> Iterator[npt.NDArray[np.int64]]:
    """The segment rows at the positions, block by block."""
    mapped = None
    if n_shards > 1:
        mapped = map_array(array_file(folder, "rows"), "<u4", (n_rows,))
    for start in range(0, n_rows, _BLOCK_POSITIONS):
        stop = min(start + _BLOCK_POSITIONS, n_rows)
        yield np.arange(start, stop) if mapped is None else mapped[start:stop].astype(np.int64)


def _runs(rows: npt.NDArray[np.int64], first_rows: npt.NDArray[np.int64]) -> Iterator[_Run]:
    """What a block of positions takes of each shard.

    As each shard is in the order of its codes too, that is one stretch of it: all features are
    read, shard beside shard, from the first to the last.
    """
    order = np.argsort(rows)
    ordered = rows[order]
    edges = np.searchsorted(ordered, first_rows)
    for shard in np.flatnonzero(np.diff(edges)).tolist():
        own = slice(edges[shard], edges[shard + 1])
        first, last = ordered[own][[0, -1]] - first_rows[shard]
        yield _Run(shard, int(first), int(last) + 1, order[own])


def _sample(shards: Sequence[Shard]) -> npt.NDArray[Any]:
    """Rows at equal distances over all shards."""
    step = max(sum(map(len, shards)) // _SAMPLE_ROWS, 1)
    parts = []
    first = 0
    for shard in shards:
        parts.append(shard.features[first::step])
        first = (first - len(shard)) % step
    return np.concatenate(parts)
