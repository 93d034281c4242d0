"""Write the codes of a segment: distinct codes, runs of rows, tables of multi-index hashing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.array_files import ArrayFile, finished, new_array
from patchknn.archive.index.layout import ArrayRecord, array_file
from patchknn.archive.index.merge import Codes, merged
from patchknn.archive.mapping import map_array
from patchknn.hamming.parts import Part, build_parts, part_widths


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
