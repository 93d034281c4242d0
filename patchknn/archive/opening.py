"""From the shards that a manifest names to shards that can be read, a thousand of them at once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
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
    json_checksum: str
    rows: int
    sources: int
    file_names: tuple[str, ...]
    sizes: Sequence[int]
    features: tuple[str, int]


def open_shards(
    path: Path,
    settings: ArchiveSettings,
    manifest: Manifest,
    *,
    known: Mapping[str, Shard],
    vouchers: Mapping[str, Voucher],
    check: bool = True,
) -> tuple[Shard, ...]:
    """The shards of a snapshot in its order; those ``known`` by uuid are not looked at again.

    Without ``check`` those with a voucher are not looked at either. Raises DamageError where a
    file is missing, changed or of a wrong size.
    """
    shards = []
    first_row = 0
    edits = edits_of(path, manifest)
    for entry in manifest.shards:
        before = known.get(entry.uuid)
        content = None if before is None else before.content
        if content is None:
            voucher = vouchers.get(entry.uuid)
            if voucher is not None and (not check or _is_as_seen(path, entry, voucher)):
                content = _content(entry, settings, manifest.classes, voucher)
        if content is None:
            content = described(path, entry, settings, manifest.classes)
            check_files(path, content)
        shards.append(Shard(path, content, first_row, manifest.classes, edits.get(entry.uuid)))
        first_row += entry.rows
    return tuple(shards)


def _content(
    entry: ShardEntry, settings: ArchiveSettings, classes: tuple[str, ...], voucher: Voucher
) -> VouchedShard | None:
    """None where the voucher is for another shard of that name."""
    if (voucher.checksum, voucher.rows) != (entry.checksum, entry.rows):
        return None
    file, offset = voucher.features
    return VouchedShard(entry, settings, classes, voucher.sources, entry.uuid + file, offset)


def _is_as_seen(path: Path, entry: ShardEntry, voucher: Voucher) -> bool:
    """Whether the files of a shard are, at first sight, as the segment saw them."""
    start = f"{path}/{SHARDS}/{entry.uuid}"
    try:
        descriptor = os.open(f"{start}.json", os.O_RDONLY)
        try:
            data = os.read(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        if hashlib.sha256(data).hexdigest() != voucher.json_checksum:
            return False
        for name, size in zip(voucher.file_names, voucher.sizes, strict=True):
            found = os.lstat(start + name)
            if found.st_size != size or not stat.S_ISREG(found.st_mode):
                return False
    except OSError:
        return False
    return True
