"""Which slides an SQL expression over their records means, as one mask per shard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from patchknn.archive.manifest import RecordsEntry
from patchknn.archive.records import KEYS, Records, open_records, table_name
from patchknn.archive.records_duckdb import is_unicode, quoted, reason
from patchknn.archive.shard import Shard
from patchknn.archive.snapshot import Snapshot
from patchknn.archive.strings import decode
from patchknn.errors import UsageError

if TYPE_CHECKING:
    import duckdb

Mask = npt.NDArray[np.bool_]
OPTION = "--where"
_AT_ONCE = 1 << 20  # sources whose names are in memory together
_NUMBER = " number"  # no field is called so: the names of columns are stripped
_NEAR = re.compile(r'at or near "(.+?)"')
_CONSTRAINT = re.compile(r"in check constraints", re.IGNORECASE)
_NO_COLUMN = re.compile(r'column "?(.+?)"? (?:not found|referenced in)')


class SourceFilter:
    """Says of each source of a shard whether ``where`` is true of its records.

    ``where`` is a boolean expression of DuckDB's SQL over the fields of the attached tables, the
    source's name as ``slide`` and its ``patient``. What is unknown (NULL) is not admitted, and so
    is a source without records unless the expression says otherwise (``organ IS NULL``).

    The shards that are searched are looked at when this is made, others when they are asked about.
    Raises UsageError naming the expression where it cannot be evaluated, DamageError where a
    table is not as it was attached.
    """

    def __init__(self, snapshot: Snapshot, where: str) -> None:
        self.where = where
        self._path = snapshot.path
        self._entries = snapshot.manifest.records
        self._masks = _masks(self._path, self._entries, snapshot.searched, where)

    def __call__(self, shard: Shard) -> Mask:
        """Whether each source (S,) of the shard is meant."""
        if shard.uuid not in self._masks:  # published meanwhile
            self._masks.update(_masks(self._path, self._entries, [shard], self.where))
        return self._masks[shard.uuid]


def _masks(
    path: Path, entries: Sequence[RecordsEntry], shards: Iterable[Shard], where: str
) -> dict[str, Mask]:
    import duckdb

    masks: dict[str, Mask] = {}
    with open_records(path, entries) as records:
        try:
            connection = records.connection
            _check(connection, records, where)
            for some in _together(shards):
                _give_sources(connection, some)
                found = connection.execute(_sql(records, quoted(_NUMBER), where)).fetchnumpy()
                mask = np.zeros(sum(shard.n_sources for shard in some), bool)
                mask[found[_NUMBER]] = True
                ends = np.cumsum([shard.n_sources for shard in some])
                parts = np.split(mask, ends[:-1])
                masks.update({s.uuid: part for s, part in zip(some, parts, strict=True)})
        except duckdb.Error as error:
            raise _refused(records, where, reason(error)) from None
    return masks


def _check(connection: duckdb.DuckDBPyConnection, records: Records, where: str) -> None:
    """Raise UsageError unless the expression is one, true or false, and about one source alone.

    DuckDB lets neither a subquery nor an aggregate into the check of a table's rows, and the
    expression must be one there, too: what closes the bracket around it is a syntax error here
    or there.
    """
    import duckdb

    if not where.strip():
        message = f"{OPTION} is blank; say it as in {OPTION} \"organ = 'colon'\"."
        raise UsageError(message)
    if not is_unicode(where):
        raise _refused(records, where, "it holds bytes that are no UTF-8")
    columns = [f"{key} VARCHAR" for key in KEYS]
    columns += [f"{quoted(field.name)} {field.type}" for field in records.fields]
    _give_sources(connection, [])
    try:
        columns.append(f"CHECK {_bracketed(where)}")
        connection.execute(f"CREATE TEMP TABLE checked ({', '.join(columns)})")
        described = connection.execute(f"DESCRIBE {_sql(records, _bracketed(where), 'true')}")
        kind = described.fetchall()[0][1].strip('"')
    except duckdb.Error as error:
        unknown = _NO_COLUMN.search(str(error))
        if unknown is not None:
            raise _unknown(records, where, unknown[1]) from None
        why = _CONSTRAINT.sub("here", reason(error))
        if "subquer" in why:
            why = "it holds a subquery, which could read anything"
        raise _refused(records, where, why) from None
    if kind != "BOOLEAN":
        raise _refused(records, where, f"it is {kind}, neither true nor false")


def _sql(records: Records, selected: str, where: str) -> str:
    fields = [f"{table_name(f.number)}.{quoted(f.name)}" for f in records.fields]
    columns = ", ".join([f"given.{quoted(_NUMBER)}", "given.slide", "given.patient", *fields])
    joins = " ".join(
        f"LEFT JOIN {table_name(number)} ON {table_name(number)}.{entry.key} = given.{entry.key}"
        for number, entry in enumerate(records.entries)
    )
    return (
        f"SELECT {selected} FROM (SELECT {columns} FROM given {joins}) AS sources "
        f"WHERE {_bracketed(where)}"
    )


def _bracketed(where: str) -> str:
    return f"(\n{where}\n)"  # a comment ends with its line


def _give_sources(connection: duckdb.DuckDBPyConnection, shards: Sequence[Shard]) -> None:
    """Make the sources of shards, numbered through, the table ``given``."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE given ({quoted(_NUMBER)} BIGINT, slide VARCHAR, "
        "patient VARCHAR)"
    )
    some = [shard for shard in shards if shard.n_sources]
    if some:
        # One long text is there in a fraction of the time that a million short ones take.
        slides = _text(shard.source_names.joined() for shard in some)
        patients = _text(shard.patients.joined() for shard in some)
        connection.execute(
            "INSERT INTO given SELECT unnest(range(?)), unnest(string_split(?, chr(0))), "
            "nullif(unnest(string_split(?, chr(0))), '')",
            [sum(shard.n_sources for shard in some), slides, patients],
        )


def _text(parts: Iterable[bytes]) -> str:
    """Parts with a zero between them; bytes that are no UTF-8 are spelled out, as JSON would."""
    data = b"\0".join(parts)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return decode(data).encode("utf-8", "backslashreplace").decode()


def _together(shards: Iterable[Shard]) -> Iterator[list[Shard]]:
    """Shards in lists of not many more sources than fit."""
    some: list[Shard] = []
    for shard in shards:
        some.append(shard)
        if sum(one.n_sources for one in some) >= _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _unknown(records: Records, where: str, name: str) -> UsageError:
    text = f"; a text stands in single quotes: '{name}'" if f'"{name}"' in where else ""
    message = f"{OPTION} {where!r}: there is no field {name!r}; {records.hint(name)}{text}."
    return UsageError(message)


def _refused(records: Records, where: str, why: str) -> UsageError:
    near = _NEAR.search(why)
    names = {field.name.lower(): field.name for field in records.fields}
    if near is not None and near[1].lower() in names:
        rest = f"a field called like a word of SQL stands in double quotes: {quoted(near[1])}"
    else:
        rest = f"it can name {', '.join([*filter(None, [records.names()]), *KEYS])}"
    return UsageError(f"{OPTION} {where!r} cannot be used: {why}; {rest}.")
