"""Slides and patients as numbers, so that rows are grouped without their names."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard

Int64 = npt.NDArray[np.int64]


class GroupNumbers:
    """Numbers the slides and patients of a snapshot as they are first asked for.

    Names are read once for each source; the numbers are the same for as long as this is kept.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._of_sources: dict[tuple[Shard, str], Int64] = {}

    def of(self, shard: Shard, sources: npt.NDArray[np.int32], kind: str) -> Int64:
        """The slide or patient of each of ``sources`` (m,) of a shard.

        A source whose patient is unknown is a patient of its own.
        """
        known = self._of_sources.get((shard, kind))
        if known is None:
            known = self._of_sources[shard, kind] = np.full(shard.n_sources, -1, np.int64)
        numbers = known[sources]
        new = np.unique(sources[numbers < 0])
        if len(new):
            known[new] = [
                self._numbers.setdefault(key, len(self._numbers))
                for key in group_keys(shard, new, kind)
            ]
            numbers = known[sources]
        return numbers


def group_keys(shard: Shard, sources: npt.NDArray[np.int32], kind: str) -> list[tuple[str, str]]:
    """The slide or patient of each of ``sources`` (m,) of a shard, in words, as in any process."""
    names = shard.source_names.take(sources)
    if kind != "patient":
        return [("source", name) for name in names]
    return [
        ("source", name) if patient is None else ("patient", patient)
        for name, patient in zip(names, shard.patients.take(sources), strict=True)
    ]
