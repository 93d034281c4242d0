"""The codes of a segment on disk: distinct codes, runs of rows, tables of multi-index hashing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.array_files import ArrayFile, finished, new_array
from patchknn.archive.index.layout import (
    ArrayRecord,
    SegmentError,
    SegmentHead,
    array_file,
    open_array,
)
from patchknn.archive.index.merge import Codes, merged
from patchknn.archive.mapping import map_array
from patchknn.hamming.code_table import CodeArrays, Part, build_parts, part_widths


@dataclass(frozen=True)
class WrittenCodes:
    """What ``write_codes`` wrote: for ``segment.json``."""

    arrays: dict[str, ArrayRecord]
    codes: int
    parts: tuple[tuple[int, int], ...]


def write_codes(
    folder: Path, runs: Sequence[Codes], *, advance: Callable[[int], None] | None = None
) -> WrittenCodes:
    """Index runs of sorted codes (n_s, K/8) uint8 in ``folder``, in bounded memory.

    ``advance`` is told of rows as they are merged. Raises UnsortedError where a run is not sorted.
    """
    bits = 8 * runs[0].shape[1]
    width = -(-bits // 64)
    with ExitStack() as stack:
        codes = stack.enter_context(ArrayFile(folder, "codes", "<u8", (width,)))
        bounds = stack.enter_context(ArrayFile(folder, "bounds", "<u4"))
        files = {"codes": codes, "bounds": bounds}
        if len(runs) > 1:  # the rows of a single run are in order already
            files["rows"] = stack.enter_context(ArrayFile(folder, "rows", "<u4"))
        bounds.append(np.zeros(1, np.uint32))
        end = 0
        for block in merged(runs):
            codes.append(block.codes)
            ends = end + np.cumsum(block.counts)
            end = int(ends[-1]) if len(ends) else end
            bounds.append(ends)
            if "rows" in files:
                files["rows"].append(block.rows)
            if advance is not None:
                advance(len(block.rows))
        arrays = {name: file.record for name, file in files.items()}
    distinct = map_array(array_file(folder, "codes"), "<u8", arrays["codes"].shape)
    parts = tuple(part_widths(bits, len(distinct)))
    arrays |= _write_parts(folder, bits, distinct, parts)
    return WrittenCodes(arrays, len(distinct), parts)


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


def _write_parts(
    folder: Path,
    bits: int,
    codes: npt.NDArray[np.uint64],
    parts: tuple[tuple[int, int], ...],
) -> dict[str, ArrayRecord]:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    out = []
    for number, (first_bit, width) in enumerate(parts):
        name = f"part{number}"
        own: dict[str, tuple[str, tuple[int, ...]]] = {"bounds": ("<u4", ((1 << width) + 1,))}
        if number:
            own |= {"order": ("<u4", (len(codes),)), "window": ("<u8", (len(codes),))}
        shapes |= {f"{name}_{column}": shape for column, shape in own.items()}
        made = {
            column: new_array(folder, f"{name}_{column}", *shape) for column, shape in own.items()
        }
        out.append(Part(first_bit, width, made["bounds"], made.get("order"), made.get("window")))
    if out:
        build_parts(bits, codes, out=tuple(out))
    return {name: finished(folder, name, *shape) for name, shape in shapes.items()}
