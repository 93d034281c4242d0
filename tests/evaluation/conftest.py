"""Archives of features, and of small pictures under a real (untrained) network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.search.class_scores import Voting

CLASSES = ("A", "B", "C")


@pytest.fixture(scope="session")
def feature_archive(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Snapshot]:
    """Write an archive of given features and labels; source i belongs to patient ``P{i % 3}``."""

    def make(
        shards: Sequence[np.ndarray],
        *,
        labels: Sequence[np.ndarray] | None = None,
        bits: int = 16,
        classifier: bool = True,
        patients: bool = True,
        seed: int = 0,
    ) -> Snapshot:
        rng = np.random.default_rng(seed)
        folder = tmp_path_factory.mktemp("archive")
        dim = shards[0].shape[1]
        hash_map = LinearMap(
            rng.normal(size=(bits, dim)).astype(np.float32), np.zeros(bits, np.float32)
        )
        head = LinearMap(
            rng.normal(size=(len(CLASSES), bits)).astype(np.float32),
            np.zeros(len(CLASSES), np.float32),
        )
        description = EncoderDescription(dim, bits, "sign", class_names=CLASSES)
        write_bundle(folder / "encoder", description, hash_map, head if classifier else None)
        bundle = load_bundle(folder / "encoder")
        create_archive(folder / "archive", bundle, patch_px=32, mpp=None)
        with ArchiveWriter(folder / "archive") as writer:
            for shard, features in enumerate(shards):
                stored = features.astype(np.float16)
                n = len(stored)
                given = rng.integers(-1, len(CLASSES), n) if labels is None else labels[shard]
                names = [f"s{shard}-{number}" for number in range(min(n, 6))]
                sources = tuple(
                    Source(
                        *(name, f"/gone/{name}", 1, 0, name.encode().ljust(16), None),
                        f"P{i % 3}" if patients else None,
                    )
                    for i, name in enumerate(names)
                )
                writer.add(
                    Rows(
                        features=stored,
                        codes=bundle.codes(stored),
                        coords=np.stack([np.arange(n), rng.permutation(n)], axis=1),
                        source=(np.arange(n) % len(names)).astype(np.int32),
                        labels=np.asarray(given, np.int32),
                        sources=sources,
                        classes=CLASSES,
                    )
                )
                writer.flush()
            writer.publish()
        return open_archive(folder / "archive")

    return make


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write a noisy PNG of about one colour."""
    from PIL import Image

    def make(path: Path, colour: Sequence[float], seed: int = 0, size: int = 32) -> Path:
        noise = np.random.default_rng(seed).normal(0, 12, (size, size, 3))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)
        return path

    return make


@pytest.fixture(scope="session")
def drawn_votes() -> Callable[..., tuple[Voting, np.ndarray]]:
    """Votes of ten neighbours for queries of three classes, and these: some are hard, some far."""

    def draw(seed: int, n: int, *, harm: float = 0.0) -> tuple[Voting, np.ndarray]:
        rng = np.random.default_rng(seed)
        true = rng.choice(3, n, p=[0.5, 0.3, 0.2])
        clear = rng.beta(2, 1, n) - harm
        agree = rng.random((n, 10)) < clear[:, None]
        labels = np.where(agree, true[:, None], rng.integers(0, 3, (n, 10)))
        far = rng.gamma(4, 0.2, n)[:, None] * (2 - clear[:, None])
        distances = np.sort(far * (1 + rng.random((n, 10)) / 4), axis=1)
        counts = np.stack([(labels == number).sum(axis=1) for number in range(3)], axis=1)
        return Voting(labels, distances, np.ones(n), counts.argmax(axis=1)), true

    return draw
