"""Which segments serve a snapshot, and which of its shards none does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.index.heads import Head
from patchknn.archive.index.layout import SegmentError
from patchknn.archive.index.names import passed_over
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard

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
    shards: Sequence[tuple[Shard, str]],
    heads: Iterable[Head],
    problems: Iterable[str] = (),
) -> Cover:
    """Cover the shards (shard, checksum) of a snapshot: of overlapping segments the largest.

    Segments with a shard that the snapshot lacks are of other snapshots.
    """
    live = {(shard.uuid, checksum): shard for shard, checksum in shards}
    free = dict(live)
    segments, sentences = [], list(problems)
    for head in sorted(heads, key=lambda head: (-head.head.rows, head.folder.name)):
        if not all(shard in free for shard in head.shards) or not head.shards:
            continue
        from patchknn.archive.index.segment import Segment  # an archive without an index is fast

        try:
            segment = Segment(head, [live[shard] for shard in head.shards], settings)
        except SegmentError as error:
            sentences.append(passed_over(path, str(error)))
            continue
        segments.append(segment)
        for shard in head.shards:
            del free[shard]
    return Cover(tuple(segments), tuple(free.values()), tuple(sentences))


def segment_damaged(path: Path, segment: Segment, error: Exception) -> str:
    """The sentence about a segment that was found damaged while it was searched."""
    problem = f"The index segment {segment.folder} is damaged: {error}"
    return passed_over(path, problem, rebuild=True)
