"""Small archives of random features under a random hash map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle, load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap

DIM, BITS = 12, 16


def build_bundle(folder: Path, *, seed: int = 0, bits: int = BITS, dim: int = DIM) -> Bundle:
    """A bundle whose hash map is random and whose backbone is one small tensor."""
    generator = np.random.default_rng(seed)
    description = EncoderDescription(dim, bits, "itq", backbone="none", class_names=("A", "B"))
    hash_map = LinearMap(
        generator.normal(size=(bits, dim)).astype(np.float32),
        generator.normal(size=bits).astype(np.float32) / 4,
    )
    backbone = {"weight": generator.normal(size=(3, 3)).astype(np.float32)}
    write_bundle(folder, description, hash_map, backbone=backbone)
    return load_bundle(folder)


def build_rows(
    bundle: Bundle,
    *,
    seed: int = 0,
    images: Sequence[str] = ("b.png", "a.png"),
    slides: Sequence[str] = ("s1.svs", "s2.svs"),
    tiles: int = 5,
    thumbnails: bool = False,
    dtype: str = "float16",
    content: int = 0,
) -> Rows:
    """One row an image and ``tiles`` a slide; labels A, B and none in turn.

    ``content`` changes what the sources hold, and so their quickhashes.
    """
    generator = np.random.default_rng(seed)
    sources, source, coords = [], [], []
    for number, name in enumerate([*images, *slides]):
        is_slide = number >= len(images)
        sources.append(
            Source(
                name=name,
                path=f"/data/{name}",
                size=1000 + content,
                mtime_ns=17 + number,
                quickhash=(name.encode() + bytes([content]) * 16)[:16].rjust(16, b"-"),
                mpp=0.25 if is_slide else None,
                patient=f"P{number % 2}" if is_slide else None,
            )
        )
        for tile in range(tiles if is_slide else 1):
            source.append(number)
            coords.append((224 * tile, 448 * number) if is_slide else (-1, -1))
    n = len(source)
    features = generator.normal(size=(n, bundle.description.feature_dim)).astype(dtype)
    return Rows(
        features=features,
        codes=bundle.codes(features),
        coords=np.array(coords, np.int64).reshape(n, 2),
        source=np.array(source, np.int32),
        labels=(np.arange(n, dtype=np.int32) % 3) - 1,
        sources=tuple(sources),
        classes=("A", "B"),
        thumbnails=tuple(bytes([row]) * row for row in range(n)) if thumbnails else None,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return build_bundle(tmp_path / "encoder")


@pytest.fixture
def make_bundle() -> Callable[..., Bundle]:
    return build_bundle


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    return build_rows


@pytest.fixture
def empty(tmp_path: Path, bundle: Bundle) -> Path:
    """An archive without rows."""
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    return path


@pytest.fixture
def archive(empty: Path, bundle: Bundle) -> Path:
    """An archive of two shards, one Zarr and one HDF5, in two snapshots: 24 rows."""
    with ArchiveWriter(empty, format="zarr", run_id="first") as writer:
        writer.add(build_rows(bundle))
        writer.publish()
    with ArchiveWriter(empty, format="hdf5", run_id="second") as writer:
        writer.add(build_rows(bundle, seed=1, images=["ü b.png", "d.png"], slides=["t1", "t2"]))
        writer.publish()
    return empty
