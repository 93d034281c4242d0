"""Small real archives with everything that makes search hard: ties, duplicates, several shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.index import plan
from patchknn.archive.index.update import update_index
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap


def write_random_bundle(
    directory: Path, rng: np.random.Generator, dim: int, bits: int, classes: Sequence[str]
) -> None:
    classifier = LinearMap(rng.normal(size=(len(classes), bits)), rng.normal(size=len(classes)))
    description = EncoderDescription(dim, bits, "sign", class_names=tuple(classes))
    hash_map = LinearMap(rng.normal(size=(bits, dim)), np.zeros(bits))
    write_bundle(directory, description, hash_map, classifier if classes else None)


def random_rows(
    rng: np.random.Generator, shard: int, *, n: int, dim: int, spread: int, classes: Sequence[str]
) -> Rows:
    """Features on a small grid of integers: many duplicates and equal distances."""
    sources = tuple(
        Source(
            name=f"s{shard}-{number}",
            path=f"/gone/s{shard}-{number}",
            size=1,
            mtime_ns=0,
            quickhash=bytes([shard if number < 5 else 99, number % 5]) * 8,
            patient=None if number % 3 == 0 else f"P{number % 2}",
        )
        for number in rng.permutation(6).tolist()
    )
    return Rows(
        features=rng.integers(-spread, spread + 1, (n, dim)).astype(np.float32),
        codes=np.zeros((n, 0), np.uint8),
        coords=np.stack([rng.integers(0, 3, n), rng.permutation(n)], axis=1),
        source=rng.integers(0, 6, n).astype(np.int32),
        labels=rng.integers(-1, len(classes), n).astype(np.int32),
        sources=sources,
        classes=tuple(classes),
    )


def index_new(archive: Path, *, apart: bool) -> None:
    """A segment of what has none yet, merged with others unless they are to stay ``apart``."""
    with pytest.MonkeyPatch.context() as patch:
        if apart:
            patch.setattr(plan, "_RATIO", 0)
        update_index(archive)


@pytest.fixture(scope="session")
def make_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Snapshot]:
    """Write and open an archive of random rows, one shard per entry of ``sizes``."""
    folder = tmp_path_factory.mktemp("archives")
    numbers = itertools.count()

    def make(
        rng: np.random.Generator,
        *,
        sizes: Sequence[int] = (40,),
        dim: int = 4,
        bits: int = 16,
        dtype: str = "float16",
        spread: int = 2,
        classes: Sequence[str] = ("a", "b", "c"),
        container: str = "hdf5",
        indexed: int = 0,
        apart: bool = False,
    ) -> Snapshot:
        number = next(numbers)
        encoder, archive = folder / f"{number}.encoder", folder / f"{number}.archive"
        write_random_bundle(encoder, rng, dim, bits, classes)
        bundle = load_bundle(encoder)
        create_archive(archive, bundle, feature_dtype=dtype, patch_px=32, mpp=None)
        with ArchiveWriter(archive, format=container) as writer:
            for shard, n in enumerate(sizes):
                # The shards from `indexed` on have no index, and those before may have one each.
                if shard and (shard == indexed or (apart and shard < indexed)):
                    writer.publish()
                    index_new(archive, apart=apart)
                rows = random_rows(rng, shard, n=n, dim=dim, spread=spread, classes=classes)
                codes = bundle.codes(rows.features)
                writer.add(Rows(**{**vars(rows), "codes": codes}))
                writer.flush()
            writer.publish()
        if indexed >= len(sizes):
            index_new(archive, apart=apart)
        return open_archive(archive)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
