"""The sketches of a segment's features on disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.array_files import ArrayFile, write_array
from patchknn.archive.index.layout import ArrayRecord, SegmentError, SegmentHead, open_array
from patchknn.archive.shard import Shard
from patchknn.hamming.sketch import PROJECTIONS, WIDTH, Projection, Sketch, fit_projection

_SAMPLE_ROWS = 8192
_BLOCK_VALUES = 1 << 23


def write_sketches(
    folder: Path, shards: Sequence[Shard]
) -> tuple[dict[str, ArrayRecord], dict[str, float] | None]:
    """Write them where they help: the arrays, and scale and slack; nothing and None otherwise."""
    projection = fit_projection(_sample(shards))
    if projection is None:
        return {}, None
    slack = 0.0
    with ArrayFile(folder, "sketch", "<f2", (WIDTH,)) as file:
        for shard in shards:
            step = max(_BLOCK_VALUES // shard.features.shape[1], 1)
            for start in range(0, len(shard), step):
                values, own = projection.bounded_sketch(shard.features[start : start + step])
                slack = max(slack, own)
                file.append(values)
        arrays = {"sketch": file.record}
    arrays["projection_mean"] = write_array(folder, "projection_mean", projection.mean)
    arrays["projection_matrix"] = write_array(folder, "projection_matrix", projection.matrix)
    return arrays, {"scale": projection.scale, "slack": slack}


def open_sketch(folder: Path, head: SegmentHead, dim: int) -> Sketch | None:
    """Map them; None where there are none. SegmentError where they do not fit.

    The projection is compared with its checksum: with another one the bounds would be wrong.
    """
    if head.sketch is None:
        return None
    scale, slack = head.sketch.get("scale", math.nan), head.sketch.get("slack", math.nan)
    if not 0 < scale < math.inf or not 0 <= slack < math.inf:
        message = f"The sketches of {folder} have a scale or a slack that cannot be."
        raise SegmentError(message)
    values = open_array(folder, head, "sketch", "<f2", (head.rows, WIDTH))
    mean = _whole(folder, head, "projection_mean", (dim,))
    matrix = _whole(folder, head, "projection_matrix", (PROJECTIONS, dim))
    return Sketch(Projection(mean, matrix, scale), values, slack)


def _whole(
    folder: Path, head: SegmentHead, name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = open_array(folder, head, name, "<f8", shape)
    found = hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()
    if found != head.arrays[name].checksum:
        message = f"{folder / name}.bin does not match its checksum."
        raise SegmentError(message)
    return values


def _sample(shards: Sequence[Shard]) -> npt.NDArray[Any]:
    """Rows at equal distances over all shards."""
    step = max(sum(map(len, shards)) // _SAMPLE_ROWS, 1)
    parts = []
    first = 0
    for shard in shards:
        parts.append(shard.features[first::step])
        first = (first - len(shard)) % step
    return np.concatenate(parts)
