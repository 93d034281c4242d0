"""Tables that people give: CSV, TSV and Parquet as named columns of text."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchknn.errors import InputError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

Row = dict[str, str | None]


@dataclass(frozen=True)
class Table:
    """Rows of a table file; every cell is text, an empty cell is None.

    ``lines`` are the line numbers of the rows in the file, counted from 1, the header's being
    the first; empty rows are left out.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    lines: tuple[int, ...]

    def numbers(self, column: str) -> list[float | None]:
        """One column as numbers.

        Raises InputError naming file, line and text where a cell is not a finite number.
        """
        numbers: list[float | None] = []
        for line, row in zip(self.lines, self.rows, strict=True):
            text = row.get(column)
            number = None if text is None else _finite(text)
            if text is not None and number is None:
                message = f"{self.path}, line {line}: {column} is {text!r}, not a number."
                raise InputError(message)
            numbers.append(number)
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
        reason = "is not a file" if path.exists() else "does not exist"
        message = f"{path} {reason}."
        raise InputError(message)
    read = _read_parquet if suffix == ".parquet" else _read_text
    columns, rows = read(path)
    twice = [name for name in dict.fromkeys(columns) if name and columns.count(name) > 1]
    if twice:
        message = f"{path} has the column {twice[0]!r} twice: rename or remove one."
        raise InputError(message)
    for name in required:
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"; rename {close[0]!r}?" if close else "."
            message = f"{path} has no column {name!r}: it has {', '.join(columns) or 'none'}{hint}"
            raise InputError(message)
    kept = {line: row for line, row in rows.items() if any(row.values())}
    names = tuple(name for name in columns if name)
    return Table(path, names, tuple(kept.values()), tuple(kept))


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read_text(path: Path) -> tuple[list[str], dict[int, Row]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _check_separated(path, columns, delimiter)
            rows = {}
            for cells in reader:
                rows[reader.line_num] = _row(columns, cells, path, reader.line_num)
    except UnicodeDecodeError:
        message = f"{path} is not UTF-8 text: save it as UTF-8."
        raise InputError(message) from None
    except csv.Error as error:
        message = f"{path} is not a readable table: {error}"
        raise InputError(message) from None
    return columns, rows


def _check_separated(path: Path, columns: list[str], delimiter: str) -> None:
    """Raise InputError for a header that only falls into columns by another character."""
    others = {",": "commas", ";": "semicolons", "\t": "tabs"}
    found = [
        name for char, name in others.items() if char != delimiter and char in "".join(columns)
    ]
    if len(columns) == 1 and found:
        message = (
            f"{path} has its cells separated by {found[0]}: save it as a .csv with commas or as a "
            ".tsv with tabs."
        )
        raise InputError(message)


def _row(columns: list[str], cells: Iterable[str], path: Path, line: int) -> Row:
    values = [cell.strip() or None for cell in cells]
    while len(values) > len(columns) and values[-1] is None:
        del values[-1]  # spreadsheets like to end lines with empty cells
    if len(values) > len(columns):
        message = f"{path}, line {line}: {len(values)} cells under {len(columns)} column names."
        raise InputError(message)
    if any(value is not None and "\0" in value for value in values):
        message = f"{path}, line {line}: a cell holds a zero byte; save the table as plain text."
        raise InputError(message)
    values += [None] * (len(columns) - len(values))
    return {name: value for name, value in zip(columns, values, strict=True) if name}


def _read_parquet(path: Path) -> tuple[list[str], dict[int, Row]]:
    import duckdb

    try:
        with duckdb.connect() as connection:
            result = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
            columns = [entry[0] for entry in result.description]
            cells = result.fetchall()
    except duckdb.Error as error:
        message = f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}"
        raise InputError(message) from None
    rows = {
        line: _row(columns, ("" if value is None else str(value) for value in row), path, line)
        for line, row in enumerate(cells, start=2)  # as if there were a header line
    }
    return columns, rows
