"""Tables that people give: CSV, TSV and Parquet as named columns of text."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchknn.errors import InputError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Table:
    """Rows of a table file; every cell is text, an empty cell is None."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str | None], ...]

    def numbers(self, column: str) -> list[float | None]:
        """One column as numbers.

        Raises InputError naming file, line and text where a cell is not a number.
        """
        numbers: list[float | None] = []
        for line, row in enumerate(self.rows, start=2):
            text = row.get(column)
            try:
                numbers.append(None if text is None else float(text))
            except ValueError:
                message = f"{self.path}, line {line}: {column} is {text!r}, not a number."
                raise InputError(message) from None
        return numbers


def read_table(path: Path, *, required: Sequence[str] = ()) -> Table:
    """Read a table by its suffix: ``.csv``, ``.tsv`` (UTF-8, a header line) or ``.parquet``.

    Raises InputError where the file is missing, is no such table, or lacks a required column.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        message = f"{path} is not a table: its name must end in {', '.join(TABLE_SUFFIXES)}."
        raise InputError(message)
    if not path.is_file():
        message = f"{path} does not exist."
        raise InputError(message)
    read = _read_parquet if suffix == ".parquet" else _read_text
    columns, rows = read(path)
    for name in required:
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"; rename {close[0]!r}?" if close else "."
            message = f"{path} has no column {name!r}: it has {', '.join(columns) or 'none'}{hint}"
            raise InputError(message)
    return Table(path, tuple(columns), tuple(rows))


def _read_text(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            rows = [_row(columns, cells, path, reader.line_num) for cells in reader if cells]
    except UnicodeDecodeError:
        message = f"{path} is not UTF-8 text: save it as UTF-8."
        raise InputError(message) from None
    except csv.Error as error:
        message = f"{path} is not a readable table: {error}"
        raise InputError(message) from None
    return columns, rows


def _row(columns: list[str], cells: Iterable[str], path: Path, line: int) -> dict[str, str | None]:
    values = [cell.strip() or None for cell in cells]
    if len(values) > len(columns):
        message = f"{path}, line {line}: {len(values)} cells under {len(columns)} column names."
        raise InputError(message)
    values += [None] * (len(columns) - len(values))
    return dict(zip(columns, values, strict=True))


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    import duckdb

    try:
        with duckdb.connect() as connection:
            result = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
            columns = [entry[0] for entry in result.description]
            cells = result.fetchall()
    except duckdb.Error as error:
        message = f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}"
        raise InputError(message) from None
    rows = [_row(columns, ("" if v is None else str(v) for v in row), path, 0) for row in cells]
    return columns, rows
