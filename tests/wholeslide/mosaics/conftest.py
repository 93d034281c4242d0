"""Archives of synthetic patients: slides whose patches are a mixture that their class decides."""

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

DIM, BITS, CLASSES, TISSUES = 16, 64, ("adeno", "benign", "squamous"), 5


def build_bundle(folder: Path, dim: int = DIM, bits: int = BITS) -> Bundle:
    """Random hyperplanes as hash map."""
    rng = np.random.default_rng(0)
    description = EncoderDescription(dim, bits, "sign", class_names=())
    write_bundle(folder, description, LinearMap(rng.normal(size=(bits, dim)), np.zeros(bits)))
    return load_bundle(folder)


def slide_rows(
    bundle: Bundle,
    slides: Sequence[tuple[str, str | None, str | None]],
    *,
    seed: int = 0,
    patches: int = 40,
    noise: float = 0.4,
) -> Rows:
    """Rows of slides (name, patient, class) on a square grid of positions.

    Each class is a mixture of tissues of its own, and each patient is stained in a way that all of
    its patches share: slides of one patient are more alike than those of one class.
    """
    tissues = np.random.default_rng(99).normal(size=(TISSUES, DIM)) * 2
    rng = np.random.default_rng(seed)
    mixtures = {name: np.roll([0.5, 0.3, 0.1, 0.1, 0.0], 2 * n) for n, name in enumerate(CLASSES)}
    stains: dict[str | None, np.ndarray] = {}
    features, coords, source, labels = [], [], [], []
    for number, (_, patient, label) in enumerate(slides):
        own = rng.normal(size=DIM) * noise
        stain = own if patient is None else stains.setdefault(patient, own)
        mixture = mixtures[label] if label is not None else np.full(TISSUES, 1 / TISSUES)
        drawn = rng.choice(TISSUES, patches, p=mixture)
        features.append(tissues[drawn] + stain + rng.normal(size=(patches, DIM)) * noise)
        side = int(np.ceil(np.sqrt(patches)))
        places = np.arange(patches)
        coords.append(np.stack([places % side, places // side], axis=1) * 224)
        source += [number] * patches
        labels += [-1 if label is None else CLASSES.index(label)] * patches
    values = np.concatenate(features).astype(np.float16)
    return Rows(
        features=values,
        codes=bundle.codes(values),
        coords=np.concatenate(coords).astype(np.int64),
        source=np.array(source, np.int32),
        labels=np.array(labels, np.int32),
        sources=tuple(
            Source(
                name=name,
                path=f"/gone/{name}",
                size=1,
                mtime_ns=0,
                quickhash=name.encode().rjust(16, b"-")[-16:],
                mpp=0.5,
                patient=patient,
            )
            for name, patient, _ in slides
        ),
        classes=CLASSES,
    )


def cohort(patients: int = 9, each: int = 2) -> list[tuple[str, str | None, str | None]]:
    """Slides of patients, each of one class."""
    return [
        (f"p{patient}s{slide}.svs", f"P{patient}", CLASSES[patient % len(CLASSES)])
        for patient in range(patients)
        for slide in range(each)
    ]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return build_bundle(tmp_path / "encoder")


@pytest.fixture
def make_archive(tmp_path: Path, bundle: Bundle) -> Callable[..., Path]:
    """An archive of slides, each list of them in ``parts`` shards."""

    def make(
        *shards: Sequence[tuple[str, str | None, str | None]], patches: int = 40, parts: int = 1
    ) -> Path:
        path = tmp_path / "archive"
        create_archive(path, bundle, patch_px=224, mpp=0.5)
        for number, slides in enumerate(shards):
            with ArchiveWriter(path, format="hdf5") as writer:
                rows = slide_rows(bundle, slides, seed=number, patches=patches)
                for part in range(parts):
                    writer.add(rows.take(np.arange(part, len(rows), parts)))
                    writer.flush()
                writer.publish()
        return path

    return make


@pytest.fixture
def make_cohort() -> Callable[..., list[tuple[str, str | None, str | None]]]:
    return cohort


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    return slide_rows
