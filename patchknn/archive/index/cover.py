"""Which segments serve a snapshot, and which of its shards none does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.layout import SegmentError
from patchknn.archive.index.names import passed_over
from patchknn.archive.index.seen import Seen
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard
from patchknn.archive.shards import Shards

if TYPE_CHECKING:
    from patchknn.archive.index.segment import Segment


class Cover(NamedTuple):
    """Every shard of a snapshot once: in one of the ``segments``, or ``bare``.

    ``problems``: a sentence for each segment that is damaged or of a newer format, and ignored.
    """

    segments: tuple[Segment, ...]
    bare: tuple[Shard, ...]
    problems: tuple[str, ...]

    def without(self, segment: Segment, problem: str) -> Cover:
        """The same where ``segment`` turned out to be damaged: its shards are bare."""
        bare = sorted([*self.bare, *segment.shards], key=lambda shard: shard.first_row)
        kept = tuple(other for other in self.segments if other is not segment)
        return Cover(kept, tuple(bare), (*self.problems, problem))


def choose_cover(
    path: Path,
    settings: ArchiveSettings,
    shards: Shards,
    seen: Seen,
    within: npt.NDArray[np.int64] | None = None,
) -> Cover:
    """Cover the shards of a snapshot, or those at ``within`` (m,): of overlapping segments the
    largest.

    Segments with a shard that the snapshot lacks are of other snapshots; likewise those with one
    that is not ``within``.
    """
    free = np.ones(len(shards), bool)
    if within is not None:
        free[:] = False
        free[within] = True
    segments, sentences = [], list(seen.problems)
    pairs = zip(seen.heads, seen.places, strict=True)
    for head, places in sorted(pairs, key=lambda pair: (-pair[0].head.rows, pair[0].folder.name)):
        is_of_this = len(places) and places.min() >= 0 and free[places].all()
        if not is_of_this or np.bincount(places).max() > 1:
            continue
        from patchknn.archive.index.segment import Segment  # an archive without an index is fast

        try:
            segments.append(Segment(head, shards.select(places), settings))
        except SegmentError as error:
            sentences.append(passed_over(path, str(error)))
            continue
        free[places] = False
    bare = shards.select(np.flatnonzero(free))
    return Cover(tuple(segments), tuple(bare), tuple(sentences))


def segment_damaged(path: Path, segment: Segment, error: Exception) -> str:
    """The sentence about a segment that was found damaged while it was searched."""
    problem = f"The index segment {segment.folder} is damaged: {error}"
    return passed_over(path, problem, rebuild=True)
