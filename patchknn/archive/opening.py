"""From the shards that a manifest names to shards that can be read, a thousand of them at once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from patchknn.archive.description import SHARDS
from patchknn.archive.edits import edits_of
from patchknn.archive.manifest import Manifest, ShardEntry
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard, VouchedShard, check_files, described


class Voucher(NamedTuple):
    """What an index segment saw of a shard, so that its JSON need not be taken apart again.

    ``checksum`` as in the manifest; ``json_checksum``: SHA-256 of the bytes of the JSON;
    ``file_names`` begin after the shard's uuid; ``features``: one of them and an offset.
    """

    checksum: str
    json_checksum: bytes
    rows: int
    sources: int
    file_names: tuple[str, ...]
    sizes: tuple[int, ...]
    features: tuple[str, int]


def open_shards(
    path: Path,
    settings: ArchiveSettings,
    manifest: Manifest,
    *,
    known: Mapping[str, Shard],
    vouchers: Mapping[str, Voucher],
) -> tuple[Shard, ...]:
    """The shards of a snapshot in its order; those ``known`` by uuid are not looked at again.

    Raises DamageError where a file is missing, changed or of a wrong size.
    """
    shards = []
    first_row = 0
    edits = edits_of(path, manifest)
    for entry in manifest.shards:
        before = known.get(entry.uuid)
        content = None if before is None else before.content
        if content is None:
            content = _vouched(path, entry, settings, manifest.classes, vouchers.get(entry.uuid))
        if content is None:
            content = described(path, entry, settings, manifest.classes)
            check_files(path, content)
        shards.append(Shard(path, content, first_row, manifest.classes, edits.get(entry.uuid)))
        first_row += entry.rows
    return tuple(shards)


def _vouched(
    path: Path,
    entry: ShardEntry,
    settings: ArchiveSettings,
    classes: tuple[str, ...],
    voucher: Voucher | None,
) -> VouchedShard | None:
    """None where anything at all is not as the segment saw it."""
    if voucher is None or (voucher.checksum, voucher.rows) != (entry.checksum, entry.rows):
        return None
    start = f"{path}/{SHARDS}/{entry.uuid}"
    try:
        descriptor = os.open(f"{start}.json", os.O_RDONLY)
        try:
            data = os.read(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        if hashlib.sha256(data).digest() != voucher.json_checksum:
            return None
        for name, size in zip(voucher.file_names, voucher.sizes, strict=True):
            found = os.lstat(start + name)
            if found.st_size != size or not stat.S_ISREG(found.st_mode):
                return None
    except OSError:
        return None
    file, offset = voucher.features
    return VouchedShard(entry, settings, classes, voucher.sources, entry.uuid + file, offset)
