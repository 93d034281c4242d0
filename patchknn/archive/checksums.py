"""SHA-256 of arrays, of parts of files, and of what lies between the arrays of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

_BLOCK = 8 << 20


def array_checksum(values: npt.NDArray[np.generic]) -> str:
    """Hexadecimal SHA-256 of a contiguous array's bytes."""
    return hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()


def span_checksum(file: Path, start: int, length: int) -> str:
    """SHA-256 of ``length`` bytes from ``start``; fewer where the file ends before."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        _update(digest, stream, start, length)
    return digest.hexdigest()


def outside_checksum(file: Path, spans: Iterable[tuple[int, int]]) -> str:
    """SHA-256 of the bytes of a file outside ``spans`` (start, length): its headers."""
    digest = hashlib.sha256()
    position = 0
    with file.open("rb") as stream:
        for start, length in sorted(spans):
            _update(digest, stream, position, start - position)
            position = max(position, start + length)
        _update(digest, stream, position, None)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, stream: BinaryIO, start: int, length: int | None) -> None:
    stream.seek(start)
    while length is None or length > 0:
        data = stream.read(_BLOCK if length is None else min(_BLOCK, length))
        if not data:
            return
        digest.update(data)
        if length is not None:
            length -= len(data)
