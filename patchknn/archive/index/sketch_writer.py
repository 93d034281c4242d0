"""Write the sketches of a segment's features, where they help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.checksums import span_checksum
from patchknn.archive.index.array_files import ArrayFile, write_array
from patchknn.archive.index.layout import ArrayRecord, array_file
from patchknn.archive.index.segment import Segment
from patchknn.archive.shard import Shard
from patchknn.hamming.sketch import WIDTH, fit_projection

_SAMPLE_ROWS = 8192
_BLOCK_VALUES = 1 << 23


def write_sketches(
    folder: Path, shards: Sequence[Shard], donor: Segment | None = None
) -> tuple[dict[str, ArrayRecord], dict[str, float] | None]:
    """Write them where they help: the arrays, and scale and slack; nothing and None otherwise.

    Those of ``donor``, a segment with most of these rows, are taken over with its projection:
    to make them anew reads every feature.
    """
    known: dict[str, npt.NDArray[np.float16]] = {}
    slack = 0.0
    projection = None
    if donor is not None and donor.sketch is not None and _is_whole(donor):
        projection, slack = donor.sketch.projection, donor.sketch.slack
        for shard, first in zip(donor.shards, donor.first_rows[:-1].tolist(), strict=True):
            known[shard.uuid] = donor.sketch.values[first : first + len(shard)]
    if projection is None:
        projection = fit_projection(_sample(shards))
    if projection is None:
        return {}, None
    with ArrayFile(folder, "sketch", "<f2", (WIDTH,)) as file:
        for shard in shards:
            if shard.uuid in known:
                file.append(known[shard.uuid])
                continue
            step = max(_BLOCK_VALUES // shard.features.shape[1], 1)
            for start in range(0, len(shard), step):
                values, own = projection.bounded_sketch(shard.features[start : start + step])
                slack = max(slack, own)
                file.append(values)
        arrays = {"sketch": file.record}
    arrays["projection_mean"] = write_array(folder, "projection_mean", projection.mean)
    arrays["projection_matrix"] = write_array(folder, "projection_matrix", projection.matrix)
    return arrays, {"scale": projection.scale, "slack": slack}


def _is_whole(donor: Segment) -> bool:
    """Whether its sketches are as they were written: flipped bits are not handed on."""
    record = donor.head.arrays["sketch"]
    file = Path(array_file(donor.folder, "sketch"))
    return span_checksum(file, 0, record.nbytes) == record.checksum


def _sample(shards: Sequence[Shard]) -> npt.NDArray[Any]:
    """Rows at equal distances over all shards."""
    step = max(sum(map(len, shards)) // _SAMPLE_ROWS, 1)
    parts = []
    first = 0
    for shard in shards:
        parts.append(shard.features[first::step])
        first = (first - len(shard)) % step
    return np.concatenate(parts)
