"""Tables of slides or patients that are attached to an archive: opened, and what they hold."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from patchknn.archive.manifest import RECORDS, RecordsEntry
from patchknn.archive.records_duckdb import (
    READ_PARQUET,
    columns_of,
    exact_path,
    is_unicode,
    new_connection,
    quoted,
    reason,
    shut,
)
from patchknn.archive.sealed import damage
from patchknn.errors import UsageError

if TYPE_CHECKING:
    import duckdb

KEYS = ("slide", "patient")
_RANGES = ("BIGINT", "DOUBLE", "FLOAT", "DATE", "TIMESTAMP", "TIME")
_VALUES_SHOWN, _NAMES_SHOWN = 3, 20


class Field(NamedTuple):
    """A column of the attached table ``number``, with its DuckDB type, such as ``BIGINT``."""

    number: int
    table: str
    key: str
    name: str
    type: str


class FieldSummary(NamedTuple):
    """One field: in how many of the table's ``rows`` it is filled, with how many values.

    ``example``: from where to where numbers and dates go; of other types the most frequent values.
    """

    table: str
    key: str
    field: str
    type: str
    rows: int
    filled: int
    distinct: int
    example: str | None


class Records:
    """Attached tables in memory, behind a ``connection`` that reaches no file and no network.

    Table ``number`` is called ``records_<number>`` there; its column ``slide`` or ``patient``, the
    key, is text and unique. A context manager: whoever leaves it lets the tables go.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, entries: Sequence[RecordsEntry]
    ) -> None:
        self.connection = connection
        self.entries = tuple(entries)
        self.fields = tuple(
            Field(number, entry.name, entry.key, name, kind)
            for number, entry in enumerate(entries)
            for name, kind in columns_of(connection, table_name(number))
            if name != entry.key
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def field(self, name: str, option: str) -> Field:
        """The field called so, in small or capital letters as in SQL.

        Raises UsageError with the nearest name where there is none; ``option`` asked for it.
        """
        for field in self.fields:
            if field.name.lower() == name.lower():
                return field
        message = f"{option}: there is no field {name!r}; {self.hint(name)}."
        raise UsageError(message)

    def hint(self, name: str) -> str:
        """What may have been meant by a name that no field has."""
        if not self.fields:
            return "no records are attached, see 'patchknn archive records attach --help'"
        names = {field.name.lower(): field.name for field in self.fields}
        close = difflib.get_close_matches(name.lower(), names, n=1)
        return f"perhaps {names[close[0]]!r} is meant" if close else f"there are {self.names()}"

    def names(self) -> str:
        """The names of the fields as a list in a sentence, cut where they are many."""
        names = [field.name for field in self.fields]
        more = [f"{len(names) - _NAMES_SHOWN} more"] if len(names) > _NAMES_SHOWN else []
        return ", ".join([*names[:_NAMES_SHOWN], *more])

    def values(
        self, number: int, names: Sequence[str], keys: Collection[str]
    ) -> dict[str, dict[str, Any]]:
        """Fields of table ``number`` by name, for those of ``keys`` that it has.

        As JSON has them: dates and times as SQL writes them, infinities in words.
        """
        entry = self.entries[number]
        columns = ", ".join(map(quoted, [entry.key, *names]))
        wanted = f"{entry.key} IN (SELECT unnest(?::VARCHAR[]))"
        found = self.connection.execute(
            f"SELECT {columns} FROM {table_name(number)} WHERE {wanted}",
            [[key for key in keys if is_unicode(key)]],
        ).fetchall()
        return {key: dict(zip(names, map(_as_json, some), strict=True)) for key, *some in found}

    def summaries(self) -> Iterator[FieldSummary]:
        """What the fields hold, table by table."""
        for field in self.fields:
            column, table = quoted(field.name), table_name(field.number)
            sql = f"SELECT count({column}), count(DISTINCT {column}) FROM {table}"
            filled, distinct = self.connection.execute(sql).fetchall()[0]
            yield FieldSummary(
                table=field.table,
                key=field.key,
                field=field.name,
                type=field.type,
                rows=self.entries[field.number].rows,
                filled=filled,
                distinct=distinct,
                example=self._example(column, table, field.type),
            )

    def _example(self, column: str, table: str, kind: str) -> str | None:
        if kind in _RANGES:
            sql = f"SELECT min({column})::VARCHAR, max({column})::VARCHAR FROM {table}"
            ends = dict.fromkeys(self.connection.execute(sql).fetchall()[0])
            return " to ".join(end for end in ends if end is not None) or None
        sql = (
            f"SELECT {column}::VARCHAR FROM {table} WHERE {column} IS NOT NULL "
            f"GROUP BY {column} ORDER BY count(*) DESC, {column} LIMIT {_VALUES_SHOWN}"
        )
        return "; ".join(value for (value,) in self.connection.execute(sql).fetchall()) or None


def open_records(path: Path, entries: Iterable[RecordsEntry]) -> Records:
    """Read attached tables of the archive at ``path`` into memory.

    Raises DamageError where a file is missing, or is not the one that was attached.
    """
    entries = tuple(entries)
    connection = new_connection()
    try:
        for number, entry in enumerate(entries):
            load_table(connection, path, entry, table_name(number))
        shut(connection)
        return Records(connection, entries)
    except BaseException:
        connection.close()
        raise


def load_table(
    connection: duckdb.DuckDBPyConnection, path: Path, entry: RecordsEntry, name: str
) -> None:
    """Make one attached table the table ``name`` of a connection; errors as ``open_records``."""
    import duckdb

    file = records_file(path, entry.sha256)
    try:
        found = sha256_of(file)
    except OSError as error:
        raise damage(path, f"{file} cannot be read ({error.strerror}).") from None
    if found != entry.sha256:
        raise damage(path, f"{file} was changed: its checksum is no longer its name.")
    try:
        sql = f"CREATE TABLE {name} AS SELECT * FROM {READ_PARQUET}"
        connection.execute(sql, [exact_path(file)])
        (rows,) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0]
    except duckdb.Error as error:
        raise damage(path, f"{file} cannot be read ({reason(error)}).") from None
    if rows != entry.rows or (entry.key, "VARCHAR") not in columns_of(connection, name):
        raise damage(path, f"{file} is not the table that the manifest describes.")


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def records_file(path: Path, sha256: str) -> Path:
    """Where the table whose bytes have this checksum lies."""
    return path / RECORDS / f"{sha256}.parquet"


def sha256_of(file: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def table_name(number: int) -> str:
    """What table ``number`` of some records is called in SQL."""
    return f"records_{number}"
