"""``patchknn archive merge``: take other archives in."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.archive.merge import LabelConflict, Other

_SHOWN = 10


def merge(
    archive: archive_options.Archive,
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="OTHERS…", help="Archives to take in.")
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            "--prefix",
            metavar="SITE=ARCHIVE",
            help="Take in ARCHIVE with SITE/ before its slides and patients; repeatable.",
        ),
    ] = None,
    conflicts: Annotated[
        Path | None,
        typer.Option(
            "--conflicts",
            metavar="FILE",
            help="Write all labels that disagree as CSV: id, label (the other's), kept, archive.",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Take in the rows of other archives of the same encoder and settings, in one snapshot.

    Who relabelled them comes along; tables that are attached do not. A patch that is there
    already, of the same file, is kept once, with the label it has; labels that disagree are listed
    on stderr (exit 3), or in --conflicts FILE, which 'archive relabel' takes once it is edited. One
    name with two contents is an error: sites that share names are told apart by --prefix. An
    ARCHIVE that is not there yet is made.
    Example: patchknn archive merge all --prefix A=site-a --prefix B=site-b
    """
    from patchknn.archive.create import create_like
    from patchknn.archive.merge import merge_archives
    from patchknn.archive.settings import SETTINGS_FILE
    from patchknn.archive.snapshot import open_archive
    from patchknn.cli.archive_runs import ChangingRun

    given = _others(others or [], prefix or [])
    style = console.output_format(format)
    first = open_archive(given[0].path)
    if not dry_run and not (archive / SETTINGS_FILE).is_file():
        create_like(archive, first)
    names = [str(other.path) for other in given]
    with ChangingRun(archive, {"others": names, "prefix": prefix}, dry_run=dry_run) as run:
        done = merge_archives(archive, given, run_id=run.id, dry_run=dry_run)
        for other in dict.fromkeys(other.path for other in given):
            for table in open_archive(other).manifest.records:
                console.warn(f"{table.name}, attached to {other}, does not come along.")
        if conflicts is not None:
            _write_conflicts(conflicts, done.conflicts)
        for conflict in done.conflicts[:_SHOWN]:
            console.message(
                f"{conflict.id}: {conflict.kept or 'no label'} is kept, {conflict.archive} says "
                f"{conflict.other or 'no label'}."
            )
        if len(done.conflicts) > _SHOWN:
            console.message(f"… and {len(done.conflicts) - _SHOWN} more labels that disagree.")
        summary = {
            "rows_added": done.rows,
            "sources_added": done.sources,
            "duplicates": done.duplicates,
            "label_conflicts": len(done.conflicts),
        }
        run.summarise(summary, done.number, style)
    return 3 if done.conflicts else 0


def _write_conflicts(file: Path, conflicts: Sequence[LabelConflict]) -> None:
    from patchknn.files import replaced_atomically

    with (
        replaced_atomically(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(("id", "label", "kept", "archive"))
        writer.writerows((one.id, one.other, one.kept, one.archive) for one in conflicts)


def _others(plain: list[Path], prefixed: list[str]) -> list[Other]:
    from patchknn.archive.merge import Other
    from patchknn.errors import UsageError

    found = [Other(path) for path in plain]
    for text in prefixed:
        site, separator, path = text.partition("=")
        if not separator or not site or not path:
            message = f"--prefix {text}: say SITE=ARCHIVE."
            raise UsageError(message)
        found.append(Other(Path(path), site))
    if not found:
        message = "Give the archives to take in: paths, or --prefix SITE=ARCHIVE."
        raise UsageError(message)
    return found
