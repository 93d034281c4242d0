"""Which segments to build: new shards make one, and small ones are merged with what is larger."""

from __future__ import annotations

from collections.abc import Sequence

from patchknn.archive.index.layout import MAX_ROWS

MAX_SEGMENTS = 8
# A segment is merged with what is at least half as large: every row is written again but a few
# times, however an archive grows.
_RATIO = 2


def plan_merge(sizes: Sequence[int], new_rows: int, *, largest: int = MAX_ROWS) -> list[int]:
    """Which segments (numbers into ``sizes``, in rows) to merge with ``new_rows`` uncovered rows.

    Afterwards at most 8 are left, where none grows beyond ``largest``. None of them where there
    is nothing to do.
    """
    order = sorted(range(len(sizes)), key=lambda number: sizes[number])
    merged: list[int] = []
    total = new_rows
    if not new_rows and len(sizes) <= MAX_SEGMENTS:
        return []
    for number in order:
        left = len(sizes) - len(merged) + (1 if total else 0)
        due = sizes[number] < _RATIO * total or left > MAX_SEGMENTS
        if not due or total + sizes[number] > largest:
            break
        merged.append(number)
        total += sizes[number]
    return merged if new_rows or len(merged) > 1 else []
