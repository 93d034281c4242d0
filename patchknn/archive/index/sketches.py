"""The sketches of a segment's features, opened."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.layout import SegmentError, SegmentHead, open_array
from patchknn.hamming.sketch import PROJECTIONS, WIDTH, Projection, Sketch


def open_sketch(folder: Path, head: SegmentHead, dim: int) -> Sketch | None:
    """Map them; None where there are none. SegmentError where they do not fit.

    The projection is compared with its checksum: with another one the bounds would be wrong.
    """
    if head.sketch is None:
        return None
    scale, slack = head.sketch.get("scale", math.nan), head.sketch.get("slack", math.nan)
    if not 0 < scale < math.inf or not 0 <= slack < math.inf:
        message = f"The sketches of {folder} have a scale or a slack that cannot be."
        raise SegmentError(message)
    values = open_array(folder, head, "sketch", "<f2", (head.rows, WIDTH))
    mean = _whole(folder, head, "projection_mean", (dim,))
    matrix = _whole(folder, head, "projection_matrix", (PROJECTIONS, dim))
    return Sketch(Projection(mean, matrix, scale), values, slack)


def _whole(
    folder: Path, head: SegmentHead, name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = open_array(folder, head, name, "<f8", shape)
    found = hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()
    if found != head.arrays[name].checksum:
        message = f"{folder / name}.bin does not match its checksum."
        raise SegmentError(message)
    return values
