"""A table that somebody gives, as records: typed columns, one row for each slide or patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.records import KEYS, sha256_of
from patchknn.archive.records_duckdb import (
    READ_PARQUET,
    columns_of,
    exact_path,
    new_connection,
    quoted,
    reason,
)
from patchknn.errors import InputError, PatchknnError
from patchknn.files import errors_named, fsync_file
from patchknn.tables import Table, read_table

if TYPE_CHECKING:
    import duckdb

_CSV = (
    "delim = ',', quote = '\"', escape = '\"', comment = '', header = true, "
    "hive_partitioning = false"
)
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
# DuckDB takes F for false, 01/02/2015 for a day in January or February, and 12345678901234567890
# for a rounded number. What could mean something else stays the text that it is.
_CERTAIN = {
    "BOOLEAN": r"true|false",
    "BIGINT": r"[+-]?(0|[1-9][0-9]{0,17})",
    "DOUBLE": r"[+-]?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf)",
    "DATE": _DAY,
    "TIME": _CLOCK,
    "TIMESTAMP": f"{_DAY}[ T]{_CLOCK}",
}
_BREAKS = re.compile(r"[\r\n]")
_FLOATS = ("DOUBLE", "FLOAT")
# What the columns of a Parquet file become, by the name of their type.
_KEPT = {
    **dict.fromkeys(("BOOLEAN", "DATE", "TIME", "TIMESTAMP"), "{}"),
    **dict.fromkeys(_FLOATS, "CASE WHEN NOT isnan({0}) THEN {0} END"),
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "{}::BIGINT"),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"), "{}::BIGINT"),
    **dict.fromkeys(("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "{}::TIMESTAMP"),
    "TIMESTAMP WITH TIME ZONE": "timezone('UTC', {})",
    "DECIMAL": "{}::DOUBLE",
    **dict.fromkeys(("VARCHAR", "ENUM", "UUID", '"NULL"'), "nullif({}::VARCHAR, '')"),
}
_SHOWN = 3


class Given(NamedTuple):
    """A table ready to be attached: ``file`` is Parquet, sorted by its key.

    ``unkeyed``: how many rows name no slide or patient, and are not in it. ``left_out``: columns
    called like a key that is not the table's own.
    """

    file: Path
    sha256: str
    keys: tuple[str, ...]
    fields: tuple[str, ...]
    unkeyed: int
    left_out: tuple[str, ...]


class _Column(NamedTuple):
    """A column to be, and how SQL makes it."""

    name: str
    sql: str


def read_given(source: Path, key: str, folder: Path, missing: Collection[str] = ()) -> Given:
    """Read a CSV, TSV or Parquet file whose rows are of one ``key`` each; write it to ``folder``.

    The types of text are those that DuckDB finds, unless a cell could mean something else; cells
    of text that are in ``missing`` are empty. NaN is no value. Raises InputError where the file
    cannot be read, has no such column or no other one, or differing rows of one key.
    """
    import duckdb

    connection = new_connection(threads=1)  # the same table is to make the same bytes
    try:
        if source.suffix.lower() == ".parquet" and source.is_file():
            _take_parquet(connection, source, key)
        else:
            _take_text(connection, read_table(source), key, folder, missing)
        return _written(connection, source, key, folder)
    except duckdb.Error as error:
        message = f"{source} cannot be read as records: {reason(error)}."
        raise InputError(message) from None
    finally:
        connection.close()


def _take_parquet(connection: duckdb.DuckDBPyConnection, source: Path, key: str) -> None:
    path = exact_path(source)
    found = columns_of(connection, READ_PARQUET, [path])
    found = [(name, kind) for name, kind in found if name.strip()]
    names = _checked(source, [name.strip() for name, _ in found], key)
    columns = []
    for name, (stored, kind) in zip(names, found, strict=True):
        way = None if kind.endswith("]") else _KEPT.get(kind.split("(")[0])
        if way is None:
            message = (
                f"{source}: the column {stored!r} is of type {kind}, which has no plain values: "
                "leave it out, or write it as text or numbers."
            )
            raise InputError(message)
        value = way.format(quoted(stored))
        if name == key and kind in _FLOATS:  # whole numbers, where pandas lacked one of them
            value = f"CASE WHEN trunc({value}) = {value} THEN ({value})::BIGINT END"
        columns.append(_Column(name, f"({value})::VARCHAR" if name == key else value))
    _make_table(connection, columns, READ_PARQUET, [path])


def _take_text(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    key: str,
    folder: Path,
    missing: Collection[str],
) -> None:
    names = _checked(table.path, table.columns, key)
    cells = [
        [None if row[column] in missing else row[column] for column in table.columns]
        for row in table.rows
    ]
    kinds = _sniffed(connection, cells, len(names), folder)
    columns, texts, parameters = [], [], []
    for number, (name, found) in enumerate(zip(names, kinds, strict=True)):
        values = [row[number] for row in cells]
        kind = found if name != key and _is_certain(found, values) else "VARCHAR"
        columns.append(_Column(name, _KEPT[kind].format(f"nullif(c{number}, '')::{kind}")))
        # One long text is there in a fraction of the time that many short ones take.
        texts.append(f"unnest(string_split(?, chr(0))) AS c{number}")
        parameters.append("\0".join(value or "" for value in values))
    relation = f"(SELECT {', '.join(texts)} LIMIT {len(cells)})"
    _make_table(connection, columns, relation, parameters)


def _sniffed(
    connection: duckdb.DuckDBPyConnection,
    cells: Sequence[Sequence[str | None]],
    width: int,
    folder: Path,
) -> list[str]:
    """The types that DuckDB finds in the columns of some cells."""
    file = folder / "given.csv"
    with errors_named(file), file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow([f"c{number}" for number in range(width)])
        # What has several lines is text anyway, and could end a row.
        writer.writerows([cell and _BREAKS.sub(" ", cell) for cell in row] for row in cells)
    relation = f"read_csv(?, {_CSV}, sample_size = -1, dateformat = '%Y-%m-%d')"
    return [kind for _, kind in columns_of(connection, relation, [exact_path(file)])]


def _is_certain(kind: str, values: Iterable[str | None]) -> bool:
    if kind not in _CERTAIN:
        return False
    matches = re.compile(_CERTAIN[kind], re.IGNORECASE).fullmatch
    return all(value is None or matches(value) for value in values)


def _checked(source: Path, columns: Sequence[str], key: str) -> list[str]:
    """The columns of a table by name; its key is called ``slide`` or ``patient``."""
    names = [key if name.lower() == key else name for name in columns]
    if key not in names:
        message = (
            f"{source} has no column {key!r}: it has {', '.join(columns) or 'none'}; rename the "
            f"one that holds the {key}, or give another --key."
        )
        raise InputError(message)
    lower = [name.lower() for name in names]
    for number, name in enumerate(lower):
        if name in lower[:number]:
            message = f"{source} has the column {columns[number]!r} twice: rename or remove one."
            raise InputError(message)
    return names


def _make_table(
    connection: duckdb.DuckDBPyConnection,
    columns: Sequence[_Column],
    relation: str,
    parameters: Sequence[str],
) -> None:
    selected = ", ".join(f"{column.sql} AS {quoted(column.name)}" for column in columns)
    connection.execute(f"CREATE TABLE given AS SELECT {selected} FROM {relation}", list(parameters))


def _written(connection: duckdb.DuckDBPyConnection, source: Path, key: str, folder: Path) -> Given:
    names = [name for name, _ in columns_of(connection, "given")]
    fields = tuple(name for name in names if name.lower() not in KEYS)
    if not fields:
        message = f"{source} has no column beside {', '.join(names)}: there is nothing to attach."
        raise InputError(message)
    (unkeyed,) = connection.execute(f"SELECT count(*) FROM given WHERE {key} IS NULL").fetchall()[0]
    kept = ", ".join(map(quoted, [key, *fields]))
    connection.execute(
        f"CREATE TABLE records AS SELECT DISTINCT {kept} FROM given WHERE {key} IS NOT NULL"
    )
    repeated = f"SELECT {key} FROM records GROUP BY {key} HAVING count(*) > 1 ORDER BY {key}"
    differing = [name for (name,) in connection.execute(repeated).fetchall()]
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        named = ", ".join(map(repr, differing[:_SHOWN]))
        message = f"{source} has rows that differ for the {key} {named}{more}: keep one of each."
        raise InputError(message)
    file = folder / "records.parquet"
    write_sorted(connection, "records", key, file)
    keys = connection.execute(f"SELECT {key} FROM records ORDER BY {key}").fetchall()
    left_out = tuple(name for name in names if name not in {key, *fields})
    return Given(file, sha256_of(file), tuple(k for (k,) in keys), fields, unkeyed, left_out)


def write_sorted(connection: duckdb.DuckDBPyConnection, table: str, key: str, file: Path) -> None:
    """Write a table as Parquet, in the order of its key, and force it to disk.

    Raises OSError where the disk is full, or PatchknnError, naming the file.
    """
    import duckdb

    target = str(file).replace("'", "''")
    try:
        with errors_named(file):
            connection.execute(
                f"COPY (SELECT * FROM {table} ORDER BY {key}) TO '{target}' "
                "(FORMAT parquet, COMPRESSION zstd)"
            )
    except duckdb.Error as error:
        message = f"{file} cannot be written ({reason(error)})."
        raise PatchknnError(message) from None
    fsync_file(file)
