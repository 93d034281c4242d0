"""Everything that can be wrong with the attached tables of an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from patchknn.archive.manifest import RECORDS, Manifest
from patchknn.archive.records import open_records, records_file
from patchknn.errors import PatchknnError

Findings = Iterator[tuple[str, str]]


def records_findings(
    path: Path, manifests: Iterable[Manifest], advance: Callable[[int], None]
) -> Findings:
    """(file, sentence) for each table, of those that some snapshot names, with something wrong."""
    entries = {entry.sha256: entry for manifest in manifests for entry in manifest.records}
    for entry in entries.values():
        try:
            with open_records(path, [entry]):
                advance(records_file(path, entry.sha256).stat().st_size)
        except (PatchknnError, OSError) as error:
            sentence = str(error).split(" See all that is wrong by ")[0]
            yield f"{RECORDS}/{entry.sha256}.parquet", sentence
