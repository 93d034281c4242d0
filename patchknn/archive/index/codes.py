"""The codes of a segment, opened: distinct codes, runs of rows, tables of multi-index hashing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.layout import SegmentError, SegmentHead, array_file, open_array
from patchknn.hamming.code_table import CodeArrays, Part


def open_codes(folder: Path, head: SegmentHead) -> CodeArrays:
    """Map them; SegmentError where sizes do not fit or the arrays do not begin and end right."""
    width = -(-head.bits // 64)
    codes = open_array(folder, head, "codes", "<u8", (head.codes, width))
    bounds = open_bounds(folder, head, "bounds", head.codes, head.rows)
    parts = []
    for number, (first_bit, bits) in enumerate(head.parts):
        if not 0 < bits <= 32 or first_bit + bits > head.bits:
            message = f"A part of {bits} bits from bit {first_bit} in {folder} cannot be."
            raise SegmentError(message)
        name = f"part{number}"
        starts = open_bounds(folder, head, f"{name}_bounds", 1 << bits, head.codes)
        order = window = None
        if number:
            order = open_array(folder, head, f"{name}_order", "<u4", (head.codes,))
            window = open_array(folder, head, f"{name}_window", "<u8", (head.codes,))
        parts.append(Part(first_bit, bits, starts, order, window))
    return CodeArrays(head.bits, codes, bounds, tuple(parts))


def open_bounds(
    folder: Path, head: SegmentHead, name: str, count: int, end: int
) -> npt.NDArray[np.uint32]:
    """The bounds (count + 1,) of ranges; SegmentError unless they go from 0 to ``end``."""
    bounds: npt.NDArray[np.uint32] = open_array(folder, head, name, "<u4", (count + 1,))
    if int(bounds[0]) != 0 or int(bounds[-1]) != end:
        message = f"{array_file(folder, name)} does not go from 0 to {end}."
        raise SegmentError(message)
    return bounds
