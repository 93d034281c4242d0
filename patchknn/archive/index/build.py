"""Build one segment over some shards: beside the others first, then under its own name."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.description import SHARDS
from patchknn.archive.index.array_files import write_array
from patchknn.archive.index.code_writer import write_codes
from patchknn.archive.index.layout import (
    MAX_ROWS,
    SHARD_LINE,
    ArrayRecord,
    SegmentHead,
    write_head,
)
from patchknn.archive.index.lookup_writer import write_lookups
from patchknn.archive.index.merge import UnsortedError
from patchknn.archive.index.names import TEMPORARY, segment_name, segments_folder
from patchknn.archive.index.segment import Segment
from patchknn.archive.index.sketch_writer import write_sketches
from patchknn.archive.sealed import checksum_of, damage
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard
from patchknn.files import errors_named, fsync_directory


def build_segment(
    path: Path,
    settings: ArchiveSettings,
    shards: Sequence[tuple[Shard, str]],
    *,
    advance: Callable[[int], None] | None = None,
    replace: bool = False,
    donor: Segment | None = None,
) -> str:
    """Write the segment over ``shards`` (shard, checksum of its JSON) and return its name.

    A segment of that name that is there already stays, unless ``replace``. Whatever goes wrong,
    nothing of it is left. ``advance`` is told of rows as they are merged; ``donor`` is a segment
    over most of these shards, whose sketches serve again. Raises DamageError
    where a shard is not what it must be, OSError where the archive cannot be written to.
    """
    own = [shard for shard, _ in shards]
    if sum(map(len, own)) > MAX_ROWS:
        message = f"a segment holds at most {MAX_ROWS} rows"
        raise ValueError(message)
    name = segment_name((shard.uuid, checksum) for shard, checksum in shards)
    folder = segments_folder(path)
    temporary = folder / f"{TEMPORARY}{name[:16]}-{secrets.token_hex(6)}"
    try:
        with errors_named(folder, temporary):
            temporary.mkdir(parents=True)
            _fill(temporary, path, settings, shards, advance=advance, donor=donor)
            fsync_directory(temporary)
            give_name(temporary, folder / name, replace=replace)
            fsync_directory(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return name


def _fill(
    folder: Path,
    path: Path,
    settings: ArchiveSettings,
    shards: Sequence[tuple[Shard, str]],
    *,
    advance: Callable[[int], None] | None,
    donor: Segment | None,
) -> None:
    own = [shard for shard, _ in shards]
    lines, sizes, file_sets = _shard_lines(path, shards)
    try:
        written = write_codes(folder, [shard.codes for shard in own], advance=advance)
    except UnsortedError as error:
        file = own[error.run].description.arrays["codes"].file
        problem = f"{path / SHARDS / file}: its rows are not in the order of their codes."
        raise damage(path, problem) from None
    sketch_arrays, sketch = write_sketches(folder, own, donor)
    arrays: dict[str, ArrayRecord] = {
        **written.arrays,
        **write_lookups(folder, own),
        **sketch_arrays,
        "shards": write_array(folder, "shards", lines.view(np.uint8).reshape(len(own), -1)),
        "shard_sizes": write_array(folder, "shard_sizes", sizes),
    }
    head = SegmentHead(
        archive_id=settings.archive_id,
        bits=settings.bits,
        rows=sum(map(len, own)),
        sources=sum(shard.n_sources for shard in own),
        codes=written.codes,
        parts=written.parts,
        sketch=sketch,
        file_sets=file_sets,
        arrays=arrays,
    )
    write_head(folder, head)


def _shard_lines(
    path: Path, shards: Sequence[tuple[Shard, str]]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], tuple[tuple[str, ...], ...]]:
    lines = np.zeros(len(shards), SHARD_LINE)
    sizes: list[int] = []
    file_sets: dict[tuple[str, ...], int] = {}
    for line, (shard, checksum) in zip(lines, shards, strict=True):
        file = path / SHARDS / f"{shard.uuid}.json"
        data = file.read_bytes()
        if checksum_of(json.loads(data)) != checksum:
            raise damage(path, f"{file} is not the file that the manifest names.")
        description = shard.description
        # Of files without arrays, which only other programs read, verify says what is wrong.
        used = {place.file for place in description.arrays.values()}
        files = [record for record in description.files if record.file in used]
        # Names of files begin with the uuid, and are alike in all shards of a container.
        names = tuple(record.file[len(shard.uuid) :] for record in files)
        place = description.arrays["features"]
        line["uuid"] = np.frombuffer(bytes.fromhex(shard.uuid), np.uint8)
        line["checksum"] = np.frombuffer(bytes.fromhex(checksum), np.uint8)
        line["json_checksum"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        line["rows"], line["sources"] = shard.n, shard.n_sources
        line["features_offset"] = place.offset
        line["features_file"] = names.index(place.file[len(shard.uuid) :])
        line["file_set"] = file_sets.setdefault(names, len(file_sets))
        line["first_size"] = len(sizes)
        sizes += [record.size for record in files]
    return lines, np.array(sizes, np.int64), tuple(file_sets)


def give_name(temporary: Path, final: Path, *, replace: bool) -> None:
    """Rename a whole folder to ``final``; one that is there stays, unless ``replace``."""
    if replace and final.exists():
        # Whoever reads the old one keeps its files open; to others it is gone for a moment.
        old = final.with_name(f"{TEMPORARY}{final.name[:16]}-{secrets.token_hex(6)}")
        final.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.rename(final)
    except OSError:  # another process has built the same
        if not final.is_dir():
            raise
