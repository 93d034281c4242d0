"""Archives of several shards, large enough for multi-index hashing, and how to ask them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.index.update import update_index
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import Snapshot
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle


def add_rows(path: Path, bundle: Bundle, n: int, *, name: str, seed: int = 0) -> None:
    """Publish n rows as one shard: two slides of two patients, and plain images for a tenth."""
    generator = np.random.default_rng(seed)
    plain = n // 10
    names = [f"{name}.svs", f"ü {name}.svs", *(f"{name}/{i}.png" for i in range(plain))]
    sources = tuple(
        Source(
            name=one,
            path=f"/data/{one}",
            size=number,
            mtime_ns=number,
            quickhash=one.encode()[:16].ljust(16, b"-"),
            patient=[f"P {name}", "everyone's", None][min(number, 2)],
        )
        for number, one in enumerate(names)
    )
    source = np.append(np.arange(n - plain) % 2, 2 + np.arange(plain)).astype(np.int32)
    coords = np.stack([np.arange(n) * 224, np.arange(n) % 7], axis=1)
    coords[n - plain :] = -1
    # Every fifth row is one of a few: frequent codes and equal distances.
    features = generator.normal(size=(n, bundle.description.feature_dim)).astype(np.float16)
    features[::5] = features[generator.integers(0, min(n, 8), len(features[::5]))]
    with ArchiveWriter(path) as writer:
        writer.add(
            Rows(
                features=features,
                codes=bundle.codes(features),
                coords=coords,
                source=source,
                labels=np.zeros(n, np.int32),
                sources=sources,
                classes=("A",),
            )
        )
        writer.publish()


@pytest.fixture
def grow() -> Callable[..., None]:
    return add_rows


def make_archive(
    folder: Path, make_bundle: Callable[..., Bundle], sizes: list[int], *, bits: int = 64
) -> Path:
    """An archive of one shard for each size, not indexed."""
    bundle = make_bundle(folder / "encoder", bits=bits)
    path = folder / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    for number, n in enumerate(sizes):
        add_rows(path, bundle, n, name=f"s{number}", seed=number)
    return path


@pytest.fixture
def new_archive(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Callable[..., Path]:
    return lambda *sizes, bits=64: make_archive(tmp_path, make_bundle, [*sizes], bits=bits)


@pytest.fixture
def indexed(new_archive: Callable[..., Path]) -> Path:
    """Three shards, 4500 rows of 64 bits, in one segment with parts."""
    path = new_archive(1500, 2000, 1000)
    update_index(path)
    return path


def identities(snapshot: Snapshot) -> list[str]:
    """The id of every row, read from the shards."""
    return [snapshot.row(row).id for row in range(snapshot.n_rows)]


@pytest.fixture
def ids_of() -> Callable[[Snapshot], list[str]]:
    return identities
