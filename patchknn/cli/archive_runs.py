"""What commands that change an archive have in common: their run record and their index."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from patchknn.cli import console

if TYPE_CHECKING:
    from patchknn.archive.records_where import SourceFilter

_SHOWN = 10


class ChangingRun:
    """A command that changes ``archive``: its record is there before the snapshot that names it.

    A context manager; what published nothing leaves no record, and ``dry_run`` writes none.
    ``tells`` False keeps the command line out of the record.
    """

    def __init__(
        self, archive: Path, settings: Mapping[str, Any], *, dry_run: bool, tells: bool = True
    ) -> None:
        from patchknn.archive.runs import describe_run, new_run_id

        self._archive = archive
        self._dry_run = dry_run
        argv = sys.argv[1:] if tells else sys.argv[1:3]
        self._record = describe_run(["patchknn", *argv], settings)
        self._published = False
        self.id = new_run_id()

    def __enter__(self) -> Self:
        from patchknn.archive.runs import write_run
        from patchknn.archive.settings import read_settings

        read_settings(self._archive)  # nothing is written beside what is no archive
        if not self._dry_run:
            write_run(self._archive, self.id, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        from patchknn.archive.runs import remove_run

        if not self._published and not self._dry_run:
            remove_run(self._archive, self.id)

    def summarise(self, summary: Mapping[str, Any], snapshot: int | None, style: str) -> None:
        """Print what it came to; where a snapshot was published, record that and index it."""
        from patchknn.archive.index.after_publishing import try_update_index
        from patchknn.archive.runs import write_run

        whole: dict[str, Any] = {"archive": str(self._archive)}
        if self._dry_run:
            whole["dry_run"] = True
        whole |= {**summary, "snapshot": snapshot}
        if snapshot is not None:
            self._published = True
            write_run(self._archive, self.id, {**self._record, "counts": dict(summary)})
            problem = try_update_index(self._archive)
            if problem is not None:
                console.warn(problem)
        console.write_rows([whole], list(whole), style)


def name_missing(archive: Path, missing: Sequence[str]) -> None:
    """Say on stderr what was named and is not there: the first ones, and how many."""
    for name in missing[:_SHOWN]:
        console.message(f"{name}: {archive} has no such patch, slide or patient.")
    if len(missing) > _SHOWN:
        console.message(f"… and {len(missing) - _SHOWN} more that {archive} does not have.")


def source_filter(archive: Path, where: str | None) -> SourceFilter | None:
    """What ``--where`` says, of the newest snapshot; None where it says nothing."""
    if where is None:
        return None
    from patchknn.archive.records_where import SourceFilter
    from patchknn.archive.snapshot import open_archive

    return SourceFilter(open_archive(archive), where)


def words_of(values: Sequence[str] | None) -> list[str]:
    """Values of an option; ``-`` reads them from stdin, a line each."""
    words: list[str] = []
    for value in values or ():
        words += console.stdin_lines() if value == "-" else [value]
    return words
