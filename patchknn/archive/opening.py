"""From the shards that a manifest names to shards that can be read, a thousand of them at once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from patchknn.archive.description import SHARDS, ShardDescription
from patchknn.archive.edits import edits_of
from patchknn.archive.manifest import Manifest
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard, VouchedShard, check_files, described
from patchknn.archive.shard_list import ShardEntry
from patchknn.archive.shards import Shards

Int64 = npt.NDArray[np.int64]


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


class Witness(Protocol):
    """Whoever has seen the shards of a manifest, by their place in it."""

    def vouchers(self, places: Int64) -> list[Voucher | None]:
        """What it knows of those at ``places`` (m,)."""

    @property
    def unseen(self) -> Int64:
        """Places of those of which it knows nothing."""


def open_shards(
    path: Path,
    settings: ArchiveSettings,
    manifest: Manifest,
    *,
    known: Mapping[str, Shard] | None = None,
    witness: Witness | None = None,
    check: bool = True,
) -> Shards:
    """The shards of a snapshot in its order; those ``known`` by uuid are not looked at again.

    Without ``check`` those that the witness has seen are taken on its word: what is missing or
    too short shows when it is used.
    Raises DamageError where a file is missing, changed or of a wrong size.
    """
    entries, classes = manifest.shards, manifest.classes
    edits = edits_of(path, manifest)
    lengths = np.array(entries.rows, np.int64)
    first_rows = np.cumsum(lengths) - lengths
    everything = np.arange(len(entries))
    # What all of them need is asked for at once.
    seen = dict(enumerate(witness.vouchers(everything))) if witness and check else {}

    def content(at: int) -> ShardDescription | VouchedShard:
        entry = entries[at]
        if known and entry.uuid in known:
            return known[entry.uuid].content
        voucher = seen.pop(at, None)
        if witness is not None and not check:
            (voucher,) = witness.vouchers(np.array([at]))
        if voucher is not None and (not check or _is_as_seen(path, entry, voucher)):
            vouched = _content(entry, settings, classes, voucher)
            if vouched is not None:
                return vouched
        description = described(path, entry, settings, classes)
        check_files(path, description)
        return description

    def one(at: int) -> Shard:
        own = content(at)
        return Shard(path, own, int(first_rows[at]), classes, edits.get(own.uuid))

    shards = Shards(one, first_rows, lengths)
    for at in (everything if check or witness is None else witness.unseen).tolist():
        shards[at]
    return shards


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
