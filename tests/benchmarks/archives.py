"""Archives of the benchmark's data in a cache folder, written by patchknn's own shard writer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import data
import numpy as np

from patchknn.archive.create import create_archive
from patchknn.archive.manifests import Manifest, ShardEntry, publish
from patchknn.archive.rows import Rows, Source
from patchknn.archive.settings import read_settings
from patchknn.archive.shard_writer import write_shard
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.bundle import EncoderDescription, LinearMap, load_bundle, write_bundle
from patchknn.files import fsync_directory

_VERSION = 1  # of the data: other data get another folder
_N_SLIDES = 1000
_SHARD_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Wanted:
    """One archive: distribution of codes and features, rows, bits, and how many shards."""

    codes: str
    features: str
    n: int
    bits: int
    shards: int = 1

    @property
    def name(self) -> str:
        """The folder's name in the cache."""
        return f"v{_VERSION}-{self.codes}-{self.features}-{self.n}-{self.bits}-{self.shards}"


def archive(wanted: Wanted, cache: Path) -> Path:
    """The archive's folder, written and indexed where it is not there yet."""
    path = cache / wanted.name
    if not path.exists():
        unfinished = cache / f"{wanted.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _write(wanted, unfinished)
        unfinished.rename(path)
    _index(path)
    return path


def snapshot(wanted: Wanted, cache: Path) -> Snapshot:
    """The same, opened."""
    return open_archive(archive(wanted, cache))


def _write(wanted: Wanted, path: Path) -> None:
    encoder = path.with_suffix(".encoder")
    rng = np.random.default_rng(1)
    names = tuple(f"class{number}" for number in range(data.N_CLASSES))
    weight = rng.standard_normal((wanted.bits, data.DIM), np.float32)
    # No codes are made by this map: the distributions above give them.
    write_bundle(
        encoder,
        EncoderDescription(data.DIM, wanted.bits, "sign", class_names=names),
        LinearMap(weight, np.zeros(wanted.bits, np.float32)),
    )
    create_archive(path, load_bundle(encoder), patch_px=224, mpp=0.5)
    shutil.rmtree(encoder)
    rows = _rows(wanted, names)
    settings = read_settings(path)
    size = wanted.n * (2 * data.DIM + 64)
    pieces = max(wanted.shards, -(-size // _SHARD_BYTES))
    # A shard holds whole slides.
    parts = [rows.take(part) for part in np.array_split(np.arange(len(rows)), pieces)]
    written = [write_shard(path, settings, part, container="hdf5", run_id=None) for part in parts]

    def entries(_parent: Manifest) -> tuple[list[ShardEntry], list[str]]:
        for shard in written:
            shard.rename()
        fsync_directory(path / "shards")
        return [shard.entry for shard in written], list(names)

    publish(path, settings.archive_id, entries, action="embed", run_id=None)


def _rows(wanted: Wanted, names: tuple[str, ...]) -> Rows:
    coded = data.coded_rows(wanted.codes, wanted.n, wanted.bits)
    slides = min(_N_SLIDES, wanted.n)
    source = (np.arange(wanted.n) * slides // wanted.n).astype(np.int32)
    within = np.arange(wanted.n) - np.searchsorted(source, np.arange(slides))[source]
    coords = np.stack([within % 100, within // 100], axis=1).astype(np.int64) * 224
    sources = tuple(
        Source(
            name=f"slide{number:04d}.svs",
            path=f"/slides/slide{number:04d}.svs",
            size=1,
            mtime_ns=0,
            quickhash=number.to_bytes(16, "big"),
            mpp=0.5,
            patient=f"P{number // 2}",
        )
        for number in range(slides)
    )
    return Rows(
        data.features_of(wanted.features, coded),
        coded.codes,
        coords,
        source,
        coded.classes.astype(np.int32),
        sources,
        names,
    )


def _index(path: Path) -> None:
    try:
        from patchknn.archive.index import update_index
    except ImportError:  # a patchknn without an index searches its shards
        return
    update_index(path)
