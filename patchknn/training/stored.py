"""Stored features as training data: HDF5 files and archives as one record, and its splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.datasets.entries import TILESET_SUFFIXES
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.stored import FeaturePart, Features, Origin, StoredFeatures, put_together
from patchknn.datasets.stored_hdf5 import feature_parts
from patchknn.datasets.stored_labels import labelled
from patchknn.errors import InputError
from patchknn.training.selection import SplitChoice, select

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


@dataclass(frozen=True)
class StoredSelection:
    """Which rows train and which judge: numbers (n,) int64, ascending, into the record.

    ``class_names`` are those of the training rows; ``remarks`` one sentence each; ``splits`` has a
    name per row where splits were made (None for a row left out), else it is empty.
    """

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    splits: tuple[str | None, ...] = ()


def select_stored(
    stored: StoredFeatures, choice: SplitChoice, *, seed: int, needs_labels: bool = True
) -> StoredSelection:
    """Split rows as ``select`` splits images: patients never stand on both sides.

    Raises InputError where no row has a label and one is needed, and as ``select`` does.
    """
    if needs_labels and not any(stored.labels):
        message = (
            f"None of the {len(stored)} stored features has a label: give a table of labels, with "
            "the columns slide and label."
        )
        raise InputError(message)
    # Stand-ins that are told apart by their row, which their x says.
    path = Path()
    columns = zip(stored.sources, stored.labels, stored.patients, stored.splits, strict=True)
    patches = [
        Patch(source, path, "slide", row, 0, label, patient, split)
        for row, (source, label, patient, split) in enumerate(columns)
    ]
    chosen = select(patches, choice, seed=seed, needs_labels=needs_labels)
    splits: list[str | None] = [None] * len(stored) if chosen.assigned else []
    for patch in chosen.assigned:
        splits[patch.x] = patch.split
    return StoredSelection(
        train=_rows(chosen.train),
        val=_rows(chosen.val),
        class_names=chosen.class_names,
        remarks=chosen.remarks,
        splits=tuple(splits),
    )


def _rows(patches: Iterable[Patch]) -> npt.NDArray[np.int64]:
    return np.array(sorted(patch.x for patch in patches), np.int64)


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
