"""DuckDB as records use it: in memory, with nothing to fetch and nothing to write by itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_SETTINGS: dict[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # else a FROM could read variables of this process
    "temp_directory": "",  # nothing is spilled into whatever folder one works in
    "memory_limit": "4GB",
    "threads": 2,
}
# In this order: the last one makes the others final.
_LOCKS = ("SET enable_external_access = false", "SET lock_configuration = true")
_PATTERN = re.compile(r"([*?\[])")
_KIND = re.compile(r"^(?:[A-Z][A-Za-z-]*(?: [A-Za-z-]+)? )?Error:? ")

# For a path as ``exact_path`` gives it; a folder called site=A makes no column.
READ_PARQUET = "read_parquet(?, hive_partitioning = false)"


def new_connection(threads: int = 2) -> duckdb.DuckDBPyConnection:
    """A database in memory that may read and write the files that it is told of."""
    import duckdb

    return duckdb.connect(config={**_SETTINGS, "threads": threads})


def shut(connection: duckdb.DuckDBPyConnection) -> None:
    """Take from a connection, for good, its access to files and to the network."""
    for lock in _LOCKS:
        connection.execute(lock)


def columns_of(
    connection: duckdb.DuckDBPyConnection, table: str, parameters: list[Any] | None = None
) -> list[tuple[str, str]]:
    """Names and types of the columns of whatever may stand after FROM."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {table}", parameters or [])
    return [(name, kind) for name, kind, *_ in described.fetchall()]


def quoted(name: str) -> str:
    """A name for SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def exact_path(file: Path) -> str:
    """A path for DuckDB, which else reads ``*``, ``?`` and ``[`` as a pattern."""
    return _PATTERN.sub(r"[\1]", str(file))


def is_unicode(text: str) -> bool:
    """Whether DuckDB can be given a text: names of files may hold bytes that are no UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def reason(error: Exception) -> str:
    """What DuckDB has to say, as the rest of a sentence."""
    first = (str(error).strip().splitlines() or ["it gives no reason"])[0]
    text = _KIND.sub("", first).rstrip(".!")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
