"""Taking slides and patients out of the attached tables, as withdrawn consent demands."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from patchknn.archive.manifest import RECORDS, RecordsEntry
from patchknn.archive.records import load_table, records_file, sha256_of
from patchknn.archive.records_attach import WrittenTable
from patchknn.archive.records_duckdb import new_connection
from patchknn.archive.records_given import write_sorted
from patchknn.archive.revisions import Written


def without_keys(
    path: Path,
    entries: Sequence[RecordsEntry],
    slides: Collection[str],
    patients: Collection[str],
    written: list[Written],
) -> tuple[RecordsEntry, ...]:
    """The tables of a snapshot without the rows of these; new files of them join ``written``.

    A table without any such row stays as it is. The files with them are there until they are
    deleted, as those of earlier snapshots. Raises DamageError where a table cannot be read.
    """
    kept: list[RecordsEntry] = []
    for entry in entries:
        forgotten = sorted(slides if entry.key == "slide" else patients)
        connection = new_connection(threads=1)
        try:
            load_table(connection, path, entry, "records")
            chosen = f"{entry.key} IN (SELECT unnest(?::VARCHAR[]))"
            connection.execute(f"DELETE FROM records WHERE {chosen}", [forgotten])
            (rows,) = connection.execute("SELECT count(*) FROM records").fetchall()[0]
            if rows == entry.rows:
                kept.append(entry)
                continue
            file = path / f".tmp-{os.urandom(6).hex()}-{RECORDS}.parquet"
            write_sorted(connection, "records", entry.key, file)
        finally:
            connection.close()
        sha256 = sha256_of(file)
        kept.append(entry._replace(sha256=sha256, rows=rows))
        written.append(WrittenTable(file, records_file(path, sha256)))
    return tuple(kept)
