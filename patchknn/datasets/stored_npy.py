"""Features in a ``.npy`` file, with a table that says what each of its rows is of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.datasets.stored import FeaturePart, Features, Origin
from patchknn.errors import InputError
from patchknn.slides.listing import source_name
from patchknn.tables import TABLE_SUFFIXES, Table, read_table

NPY_SUFFIX = ".npy"
_BLOCK_BYTES = 64 << 20


def npy_part(path: Path, table: Path | None = None) -> FeaturePart:
    """Everything of one ``.npy`` file (N, D) of float16, float32 or float64 but its features.

    The table has N rows, in the order of the features; without one given it lies beside the file
    under the same name (``.csv``, ``.tsv`` or ``.parquet``). Its columns are ``name`` or ``path``
    (relative to the table; the name is made of it), and any of ``x`` and ``y`` (level-0 pixels,
    both or neither, −1 for a plain image), ``label``, ``patient`` and ``split``. Raises InputError
    where either cannot be read, or they do not fit.
    """
    features = _mapped(path)
    rows = read_table(_table_of(path, table))
    if len(rows.rows) != len(features):
        message = (
            f"{path} holds features of {len(features)} patches and {rows.path} has "
            f"{len(rows.rows)} rows: give a table with one row for each, in their order."
        )
        raise InputError(message)
    names, paths = _sources(rows)
    known: dict[str | None, str | None] = {}  # one object per text, not one per row

    def texts(column: str) -> tuple[str | None, ...]:
        return tuple(known.setdefault(row.get(column), row.get(column)) for row in rows.rows)

    return FeaturePart(
        origin=Origin(path=path, kind="npy", rows=len(features), unit="px"),
        dim=features.shape[1],
        dtype=np.dtype(np.float16 if features.dtype == np.float16 else np.float32),
        sources=tuple(known.setdefault(name, name) or "" for name in names),
        coords=_coords(rows),
        labels=texts("label"),
        patients=_patients(rows, names),
        splits=texts("split"),
        blocks=lambda: _blocks(features),
        aliases=(path.name, path.stem),
        paths=paths,
    )


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        message = f"{path} does not exist."
        raise InputError(message) from None
    except (ValueError, EOFError, OSError) as error:
        # What is neither an array nor a zip NumPy takes for a pickle, and offers to load it.
        reason = "it is no .npy file of numbers" if "pickle" in str(error) else str(error)
        message = f"{path} is not an array that NumPy can read: {reason.rstrip('.')}."
        raise InputError(message) from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        shown = f"{getattr(array, 'dtype', type(array))} {getattr(array, 'shape', '')}".strip()
        message = f"{path} holds {shown}: save features (N, D) of float16 or float32."
        raise InputError(message)
    return array


def _table_of(path: Path, table: Path | None) -> Path:
    if table is not None:
        return table
    beside = [path.with_suffix(suffix) for suffix in TABLE_SUFFIXES]
    for candidate in beside:
        if candidate.is_file():
            return candidate
    message = (
        f"{path} needs a table of its rows beside it: {beside[0]} (name or path, x, y, label)."
    )
    raise InputError(message)


def _sources(table: Table) -> tuple[list[str], dict[str, Path]]:
    if not {"name", "path"} & set(table.columns):
        read_table(table.path, required=["name"])
    folder = table.path.absolute().parent
    names: list[str] = []
    paths: dict[str, Path] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        text, name = row.get("path"), row.get("name")
        file = None if text is None else folder / text
        if file is not None and name is None:
            name = source_name(file, folder)
        if name is None:
            message = f"{table.path}, line {line}: it has neither a name nor a path."
            raise InputError(message)
        names.append(name)
        if file is not None and paths.setdefault(name, file) != file:
            message = (
                f"{table.path}, line {line}: {name} is {file}, and {paths[name]} in a row before; "
                "give them other names."
            )
            raise InputError(message)
    return names, paths


def _patients(table: Table, names: list[str]) -> tuple[str | None, ...]:
    """The patient of each row's source, which some of its rows may leave empty."""
    patients: dict[str, str] = {}
    for row, line, name in zip(table.rows, table.lines, names, strict=True):
        patient = row.get("patient")
        if patient is not None and patients.setdefault(name, patient) != patient:
            message = (
                f"{table.path}, line {line}: {name} is of patient {patient}, and of "
                f"{patients[name]} in a row before; correct one."
            )
            raise InputError(message)
    return tuple(patients.get(name) for name in names)


def _coords(table: Table) -> npt.NDArray[np.float64]:
    if ("x" in table.columns) != ("y" in table.columns):
        message = f"{table.path} has only one of the columns x and y; a position needs both."
        raise InputError(message)
    if "x" not in table.columns:
        return np.full((len(table.rows), 2), -1.0)
    x, y = table.numbers("x"), table.numbers("y")
    for line, one, other in zip(table.lines, x, y, strict=True):
        if (one is None) != (other is None):
            message = f"{table.path}, line {line}: x or y is empty; give both or none."
            raise InputError(message)
    columns = [[-1.0 if value is None else value for value in column] for column in (x, y)]
    return np.array(columns, np.float64).T.reshape(-1, 2)


def _blocks(features: npt.NDArray[Any]) -> Iterator[Features]:
    step = max(1, _BLOCK_BYTES // max(1, features.shape[1] * features.dtype.itemsize))
    for start in range(0, len(features), step):
        yield np.array(features[start : start + step])
