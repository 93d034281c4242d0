"""Archives of the benchmark's data in a cache folder, written by patchknn's own shard writer."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
import numpy as np
import numpy.typing as npt

from patchknn.archive.counting import Labels, labels_of
from patchknn.archive.create import create_archive
from patchknn.archive.description import SHARDS
from patchknn.archive.index.update import update_index
from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import publish
from patchknn.archive.rows import Rows, Source
from patchknn.archive.settings import read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_list import ShardList
from patchknn.archive.shard_writer import write_shard
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.totals import NOTHING
from patchknn.bundle import Bundle, load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.files import fsync_directory

_VERSION = 1  # of the data: other data get another folder
_N_SLIDES = 1000
_SHARD_BYTES = 4_000_000_000
CLASSES = tuple(f"class{number}" for number in range(data.N_CLASSES))


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
        write_shards(unfinished, wanted.bits, data.DIM, _parts(wanted))
        unfinished.rename(path)
    update_index(path)
    return path


def snapshot(wanted: Wanted, cache: Path) -> Snapshot:
    """The same, opened."""
    return open_archive(archive(wanted, cache))


def random_bundle(folder: Path, bits: int, dim: int) -> Bundle:
    """A hash map of random directions, always the same; archives may have other codes."""
    weight = np.random.default_rng(1).standard_normal((bits, dim), np.float32)
    write_bundle(
        folder,
        EncoderDescription(dim, bits, "sign", class_names=CLASSES),
        LinearMap(weight, np.zeros(bits, np.float32)),
    )
    return load_bundle(folder)


def write_shards(path: Path, bits: int, dim: int, parts: Iterable[Rows]) -> None:
    """A new archive with a shard of each of ``parts``, not indexed."""
    encoder = path.with_suffix(".encoder")
    create_archive(path, random_bundle(encoder, bits, dim), patch_px=224, mpp=0.5)
    shutil.rmtree(encoder)
    settings = read_settings(path)
    written = [write_shard(path, settings, part, container="hdf5", run_id=None) for part in parts]

    def with_shards(parent: Manifest) -> Manifest:
        for shard in written:
            shard.rename()
        fsync_directory(path / SHARDS)
        entries = tuple(shard.entry for shard in written)
        opened = [Shard(path, s.description, 0, s.description.classes) for s in written]
        labels: Labels = Counter()
        for shard in opened:
            labels += labels_of(shard, shard.description.classes)
        patients = {name for shard in opened for name in shard.patients.distinct()} - {None}
        sources = sum(entry.sources for entry in entries)
        return parent._replace(
            shards=ShardList(entries),
            classes=CLASSES,
            sources=sources,
            rows_added=sum(entry.rows for entry in entries),
            sources_added=sources,
            totals=NOTHING.changed(
                labels, patients=len(patients), shards=[s.description for s in opened]
            ),
        )

    publish(path, settings.archive_id, with_shards, action="embed", run_id=None)


def rows_of(
    coded: data.CodedRows, features: npt.NDArray[Any], slides: int, first_slide: int = 0
) -> Rows:
    """Rows of so many slides, equally many of each, as a writer takes them."""
    n = len(coded)
    source = (np.arange(n) * slides // n).astype(np.int32)
    within = np.arange(n) - np.searchsorted(source, np.arange(slides))[source]
    coords = np.stack([within % 100, within // 100], axis=1).astype(np.int64) * 224
    sources = tuple(
        Source(
            name=f"slide{number:06d}.svs",
            path=f"/slides/slide{number:06d}.svs",
            size=1,
            mtime_ns=0,
            quickhash=number.to_bytes(16, "big"),
            mpp=0.5,
            patient=f"P{number // 2}",
        )
        for number in range(first_slide, first_slide + slides)
    )
    return Rows(
        features,
        coded.codes,
        coords,
        source,
        coded.classes.astype(np.int32),
        sources,
        CLASSES,
    )


def _parts(wanted: Wanted) -> Iterator[Rows]:
    coded = data.coded_rows(wanted.codes, wanted.n, wanted.bits)
    features = data.features_of(wanted.features, coded)
    rows = rows_of(coded, features, min(_N_SLIDES, wanted.n))
    pieces = max(wanted.shards, -(-features.nbytes // _SHARD_BYTES))
    for part in np.array_split(np.arange(len(rows)), pieces):  # a shard holds whole slides
        yield rows.take(part)
