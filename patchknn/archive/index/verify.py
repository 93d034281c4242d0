"""Everything in an archive's index that is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from patchknn.archive.checksums import span_checksum
from patchknn.archive.index.heads import read_one
from patchknn.archive.index.layout import ArrayRecord, SegmentError, array_file
from patchknn.archive.index.names import (
    INDEX,
    SEGMENT_FILE,
    SEGMENTS,
    SUPERSEDED,
    is_segment_name,
    segment_name,
    segments_folder,
)


def index_findings(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[str, str]]:
    """(file below the archive, sentence) for each thing wrong in segments.

    Those that serve earlier snapshots only are among them. ``advance`` is told of bytes as they
    are read.
    """
    folder = segments_folder(path)
    remedy = f"The index is derived: mend it by 'patchknn archive index {path} --rebuild'."
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{INDEX}/{SEGMENTS}", f"It cannot be read: {error.strerror}. {remedy}"
        return
    present = set(names)
    for name in filter(is_segment_name, names):
        place = f"{INDEX}/{SEGMENTS}/{name}"
        try:
            found = read_one(folder / name, path)
        except SegmentError as error:
            if SUPERSEDED + name in present:  # nobody uses it, and it waits to be removed
                continue
            yield f"{place}/{SEGMENT_FILE}", f"{error} {remedy}"
            continue
        if segment_name(found.shards) != name:
            yield f"{place}/{SEGMENT_FILE}", f"It is not over the shards of its name. {remedy}"
        for array, record in found.head.arrays.items():
            problem = array_problem(Path(array_file(folder / name, array)), record)
            if problem is not None:
                yield f"{place}/{array}.bin", f"{problem} {remedy}"
            advance(record.nbytes)


def array_problem(file: Path, record: ArrayRecord) -> str | None:
    """What is wrong with the bytes of one array, in a sentence."""
    try:
        size = file.stat().st_size
        if size != record.nbytes:
            return f"It holds {size} bytes instead of {record.nbytes}."
        if span_checksum(file, 0, size) != record.checksum:
            return "Its bytes do not match their checksum."
    except OSError as error:
        return f"It cannot be read: {error.strerror}."
    return None
