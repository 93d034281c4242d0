"""Stored features as training data: HDF5 files and archives as one record, and its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from patchknn.bundle import Bundle, load_bundle
from patchknn.datasets.entries import TILESET_SUFFIXES
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.stored import FeaturePart, Features, Origin, StoredFeatures, put_together
from patchknn.datasets.stored_hdf5 import feature_parts
from patchknn.datasets.stored_labels import labelled
from patchknn.errors import InputError

_BLOCK_BYTES = 64 << 20
_ARCHIVE_FILE = "archive.json"


def read_stored(paths: Iterable[str | Path], labels: str | Path | None = None) -> StoredFeatures:
    """Features of archives, HDF5 files and folders of HDF5 files, in the order given.

    Of an archive come all rows of its newest snapshot, with its labels and patients, and the
    encoder's fingerprint as what made them. ``labels`` is a table as ``labelled`` reads it; what
    it says goes before what archives and files say, and it alone gives splits. While shards and
    files are read, features stay where they are (memory-mapped in archives); held are the result,
    in float16 where all inputs are, and what ``put_together`` says. Raises InputError where
    nothing can be read or a path is none of these, DamageError for a damaged archive,
    ConflictError where inputs do not go together.
    """
    parts = (part for path in paths for part in _parts(Path(path)))
    return put_together(labelled(parts, None if labels is None else Path(labels)))


def stored_patches(stored: StoredFeatures) -> list[Patch]:
    """A patch per row, as ``select`` and ``train_encoder`` take them; each knows its row."""
    paths = [path for origin in stored.origins for path in [_stamped(origin)] * origin.rows]
    columns = zip(
        stored.sources,
        paths,
        stored.coords.tolist(),
        stored.labels,
        stored.patients,
        stored.splits,
        strict=True,
    )
    return [
        Patch(source, path, "features", int(x), int(y), label, patient, split, row=row)
        for row, (source, path, (x, y), label, patient, split) in enumerate(columns)
    ]


def origin_encoder(stored: StoredFeatures) -> Bundle | None:
    """The encoder that made all of the features, where it is kept with them, else None."""
    if stored.encoder is None or any(origin.kind != "archive" for origin in stored.origins):
        return None
    return load_bundle(stored.origins[0].path / "encoder")


def _stamped(origin: Origin) -> Path:
    """The file that changes when the features do."""
    if origin.kind == "archive":
        return origin.path / "manifests" / f"{origin.attributes['snapshot']:08d}.json"
    return origin.path


def _parts(path: Path) -> Iterator[FeaturePart | Problem]:
    if (path / _ARCHIVE_FILE).is_file():
        yield _archive_part(path)
    elif path.is_dir() or path.suffix.lower() in TILESET_SUFFIXES:
        yield from feature_parts(path)
    else:
        kinds = "an archive, an HDF5 file of features or a folder of such files"
        reason = f"is not {kinds}" if path.exists() else "does not exist"
        message = f"{path} {reason}."
        raise InputError(message)


def _archive_part(path: Path) -> FeaturePart:
    from patchknn.archive.listing import list_rows
    from patchknn.archive.snapshot import open_archive

    snapshot = open_archive(path)
    numbers: list[int] = []
    coords: list[tuple[int, int]] = []
    sources: list[str] = []
    labels: list[str | None] = []
    patients: list[str | None] = []
    known: dict[str | None, str | None] = {}  # one object per name, not one per row
    for row in list_rows(snapshot):
        numbers.append(row.row)
        coords.append((row.x, row.y))
        sources.append(known.setdefault(row.source, row.source) or "")
        labels.append(row.label)
        patients.append(known.setdefault(row.patient, row.patient))
    rows = np.array(numbers, np.int64)

    def blocks() -> Iterator[Features]:
        for shard in snapshot.shards:
            first, after = np.searchsorted(rows, [shard.first_row, shard.first_row + len(shard)])
            local = rows[first:after] - shard.first_row
            step = max(1, _BLOCK_BYTES // shard.features.strides[0])
            for start in range(0, len(local), step):
                yield shard.features[local[start : start + step]]

    settings = snapshot.settings
    return FeaturePart(
        origin=Origin(
            path=path,
            kind="archive",
            rows=len(rows),
            unit="px",
            encoder=settings.encoder_fingerprint,
            attributes={**settings._asdict(), "snapshot": snapshot.number},
        ),
        dim=settings.feature_dim,
        dtype=np.dtype(settings.feature_dtype),
        sources=tuple(sources),
        coords=np.array(coords, np.float64).reshape(-1, 2),
        labels=tuple(labels),
        patients=tuple(patients),
        splits=(None,) * len(rows),
        blocks=blocks,
        aliases=(path.name,),
    )
