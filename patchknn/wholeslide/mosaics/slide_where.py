"""Which slides an SQL expression over their records means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchknn.archive.records_where import SourceFilter
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError


def slides_where(snapshot: Snapshot, where: str, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether ``where`` is true of each slide's records: bool of the length of ``names``.

    Raises UsageError where it cannot be evaluated, InputError where it is true of no slide.
    """
    admits = SourceFilter(snapshot, where)
    meant: set[str] = set()
    for shard in snapshot.shards:
        meant.update(shard.source_names.take(np.flatnonzero(admits(shard))))
    mask = np.array([name in meant for name in names], bool)
    if not mask.any():
        message = f"--where {where!r} is true of no slide of {snapshot.path}."
        raise InputError(message)
    return mask
