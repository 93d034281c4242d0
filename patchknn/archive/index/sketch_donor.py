"""Sketches that a segment hands on to a larger one, into which it is merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from patchknn.archive.checksums import span_checksum
from patchknn.archive.index.layout import array_file
from patchknn.archive.index.segment import Segment
from patchknn.hamming.sketch import Projection, Sketch


class Donor:
    """The sketches of a segment, taken from its first position to its last.

    Both segments have their rows by code and then by shard. So where the larger one is gone
    through by position, the rows that it has of the donor come in the donor's own order.
    """

    def __init__(
        self,
        sketch: Sketch,
        segment: Segment,
        uuids: Sequence[str],
        first_rows: npt.NDArray[np.int64],
    ) -> None:
        self.projection: Projection = sketch.projection
        self.slack = sketch.slack
        self._values = sketch.values
        self._rows = segment.rows
        self._taken = 0
        first = {
            shard.uuid: int(row)
            for shard, row in zip(segment.shards, segment.first_rows[:-1], strict=True)
        }
        self._has = np.array([uuid in first for uuid in uuids])
        # What leads from a row of the larger segment to the donor's.
        self._shift = np.array([first.get(uuid, 0) for uuid in uuids]) - first_rows[:-1]

    @classmethod
    def of(
        cls, segment: Segment, uuids: Sequence[str], first_rows: npt.NDArray[np.int64]
    ) -> Self | None:
        """The donor for a segment of the shards ``uuids``, which begin at ``first_rows`` (S + 1,).

        None where ``segment`` has no sketches, or not as they were written: flipped bits are not
        handed on.
        """
        if segment.sketch is None:
            return None
        record = segment.head.arrays["sketch"]
        file = Path(array_file(segment.folder, "sketch"))
        if span_checksum(file, 0, record.nbytes) != record.checksum:
            return None
        return cls(segment.sketch, segment, uuids, first_rows)

    def fill(
        self,
        values: npt.NDArray[np.float16],
        rows: npt.NDArray[np.int64],
        owners: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Fill the next block's sketches ``values`` (m, 32): the places that were filled.

        ``rows`` (m,) are the segment rows of the block, ``owners`` (m,) their shards. A sketch is
        taken only where the donor says that it is of this row: where its map is damaged, or has
        its shards in another order, less is taken.
        """
        places = np.flatnonzero(self._has[owners])
        start, self._taken = self._taken, self._taken + len(places)
        own = rows[places] + self._shift[owners[places]]
        same = (
            np.arange(start, self._taken) if self._rows is None else self._rows[start : self._taken]
        )
        agrees = np.flatnonzero(same == own)
        values[places[agrees]] = self._values[start + agrees]
        return places[agrees]
