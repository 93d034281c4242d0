"""What the files of an index are called; without NumPy, for those who only count."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

INDEX = "index"
SEGMENTS = "segments"
MOSAICS = "mosaics"
SEGMENT_FILE = "segment.json"
TEMPORARY = ".tmp-"
SUPERSEDED = ".superseded-"  # beside a segment or mosaics: since when out of use
FORMAT = "patchknn-segment"
# Of 1, sketches were by segment row; of 2, the tables of sources kept no bits of their hashes.
FORMAT_VERSION = 3
_NAME = re.compile(r"[0-9a-f]{64}")


def segments_folder(path: Path) -> Path:
    """Where the segments of the archive at ``path`` lie."""
    return path / INDEX / SEGMENTS


def mosaics_folder(path: Path) -> Path:
    """Where the mosaics of the slides of the archive at ``path`` lie."""
    return path / INDEX / MOSAICS


def is_segment_name(name: str) -> bool:
    """Whether a folder's name is that of a whole segment, or of whole mosaics."""
    return _NAME.fullmatch(name) is not None


def segment_name(shards: Iterable[tuple[str, str]]) -> str:
    """The name of the segment over shards (uuid, checksum), in this order."""
    digest = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION}\n".encode())
    for uuid, checksum in shards:
        digest.update(f"{uuid} {checksum}\n".encode())
    return digest.hexdigest()


def passed_over(path: Path, problem: str, *, rebuild: bool = False) -> str:
    """The sentence about a segment that is not used, with the remedy.

    What is noticed on opening is replaced by indexing; the rest only where all is built anew:
    ``rebuild``.
    """
    # The remedy says which archive.
    thing = problem.rstrip(".").replace(f"{path / INDEX}/", f"{INDEX}/")
    remedy = f"patchknn archive index {path}{' --rebuild' if rebuild else ''}"
    return f"{thing}; searches do without it until '{remedy}' mends it."
