"""Files of stored features as an import takes them: found, in pixels of level 0, labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from patchknn.archive.settings import SETTINGS_FILE
from patchknn.datasets.entries import TILESET_SUFFIXES
from patchknn.datasets.patches import Problem
from patchknn.datasets.stored import FeaturePart
from patchknn.datasets.stored_hdf5 import feature_parts
from patchknn.datasets.stored_labels import Unmatched, labelled
from patchknn.datasets.stored_npy import NPY_SUFFIX, npy_part
from patchknn.errors import PatchknnError
from patchknn.indexing.import_figures import Figures, Unit, figures_of, pixel_coords
from patchknn.tables import TABLE_SUFFIXES


@dataclass(frozen=True)
class Input:
    """One file or folder that was given; ``table`` says what the rows of a ``.npy`` are."""

    path: Path
    table: Path | None = None


@dataclass(frozen=True)
class Reading:
    """How the files are read.

    ``labels`` is a table as ``datasets.stored_labels`` reads it. ``slide_mpp`` (µm/px of level 0)
    and ``unit`` of positions go before what a file says of itself.
    """

    inputs: tuple[Input, ...]
    labels: Path | None = None
    slide_mpp: float | None = None
    unit: Unit | None = None


@dataclass(frozen=True)
class Found:
    """The rows of one file, and what it says of its patches."""

    part: FeaturePart
    figures: Figures


def paired(arguments: Iterable[str | Path]) -> tuple[Input, ...]:
    """Files and folders as given; a table behind a ``.npy`` belongs to it."""
    inputs: list[Input] = []
    for argument in arguments:
        path = Path(argument)
        before = inputs[-1] if inputs else None
        is_table = path.suffix.lower() in TABLE_SUFFIXES
        if is_table and before is not None and _is_npy(before.path) and before.table is None:
            inputs[-1] = Input(before.path, path)
        else:
            inputs.append(Input(path))
    return tuple(inputs)


def iter_parts(
    reading: Reading,
    failed: Callable[[Problem], None],
    unmatched: Callable[[Unmatched], None],
) -> Iterator[Found]:
    """Each file's rows with positions in pixels and the labels of the table; no features read.

    Files that cannot be used are handed to ``failed``, rows of the table that mean nothing here
    to ``unmatched``. Raises InputError where the table itself cannot be used.
    """
    figures: dict[Path, Figures] = {}

    def usable() -> Iterator[FeaturePart]:
        for given in reading.inputs:
            for item in _of_input(given):
                found = item if isinstance(item, Problem) else _found(item, reading)
                if isinstance(found, Problem):
                    failed(found)
                else:
                    figures[found.part.origin.path] = found.figures
                    yield found.part

    for item in labelled(usable(), reading.labels, keep_unlabelled=True):
        if isinstance(item, Unmatched):
            unmatched(item)
        elif isinstance(item, Problem):
            failed(item)
        else:
            yield Found(item, figures.pop(item.origin.path))


def _of_input(given: Input) -> Iterator[FeaturePart | Problem]:
    path, suffix = given.path, given.path.suffix.lower()
    if (path / SETTINGS_FILE).is_file():
        yield Problem(str(path), f"{path} is an archive: use 'patchknn archive merge'.")
    elif path.is_dir() or suffix in TILESET_SUFFIXES:
        yield from feature_parts(path)
    elif _is_npy(path):
        try:
            yield npy_part(path, given.table)
        except PatchknnError as error:
            yield Problem(str(path), str(error))
    elif suffix in TABLE_SUFFIXES:
        text = f"{path} is a table: give it behind its .npy file, or as --labels."
        yield Problem(str(path), text)
    else:
        kinds = "an HDF5 file of features, a folder of such files or a .npy file"
        reason = f"is not {kinds}" if path.exists() else "does not exist"
        yield Problem(str(path), f"{path} {reason}.")


def _found(part: FeaturePart, reading: Reading) -> Found | Problem:
    figures = figures_of(part.origin, slide_mpp=reading.slide_mpp, unit=reading.unit)
    try:
        coords = pixel_coords(part, figures, reading.unit)
    except PatchknnError as error:
        return Problem(str(part.origin.path), str(error))
    origin = replace(part.origin, unit="px")  # the table's positions are in pixels too
    return Found(replace(part, coords=coords.astype(np.float64), origin=origin), figures)


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == NPY_SUFFIX
