"""``patchknn archive remove``: take rows out of an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.archive.choice import Choice


def remove(
    archive: archive_options.Archive,
    id: archive_options.Ids = None,
    slide: archive_options.Slides = None,
    patient: archive_options.Patients = None,
    where: archive_options.Where = None,
    label: archive_options.Labels = None,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Leave no trace: withdrawn consent. It cannot be undone."),
    ] = False,
    ignore_missing: archive_options.IgnoreMissing = False,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Remove patches, slides or patients: readers see them no more, from this snapshot on.

    What several options name is removed together; --label narrows it to a class. The bytes stay
    until 'compact' and 'gc', 'rollback' brings the rows back, and so does embed. --purge also
    compacts, deletes all earlier snapshots, and takes the names out of label history and run
    records; copies elsewhere it cannot reach. Exit 3: something named is not there, or a
    writer's unfinished files are left; the rest is removed.
    Example: patchknn archive remove ARCHIVE --slide s1.svs --dry-run
    """
    from patchknn.archive.choice import Choice
    from patchknn.archive.remove import remove_rows
    from patchknn.cli.archive_runs import ChangingRun, name_missing, source_filter, words_of
    from patchknn.errors import UsageError

    choice = Choice(
        ids=words_of(id),
        slides=words_of(slide),
        patients=words_of(patient),
        labels=label or (),
        where=source_filter(archive, where),
    )
    if not choice.says_which and not choice.labels:
        message = "Say what to remove: --id, --slide, --patient, --where or --label."
        raise UsageError(message)
    style = console.output_format(format)
    if purge and not dry_run:
        return _purge(archive, choice, ignore_missing, style)
    given = {"ids": len(choice.ids), "slides": choice.slides, "patients": choice.patients}
    given |= {"labels": choice.labels, "where": where}
    with ChangingRun(archive, given, dry_run=dry_run) as run:
        removal = remove_rows(archive, choice, run_id=run.id, dry_run=dry_run)
        name_missing(archive, removal.missing)
        summary = {
            "rows_removed": removal.rows,
            "sources_removed": removal.sources,
            "missing": len(removal.missing),
        }
        run.summarise(summary, removal.number, style)
    return 3 if removal.missing and not ignore_missing else 0


def _purge(archive: Path, choice: Choice, ignore_missing: bool, style: str) -> int:
    from patchknn.archive.purge import purge_rows
    from patchknn.cli.archive_runs import ChangingRun, name_missing

    with ChangingRun(archive, {"purge": True}, dry_run=False, tells=False) as run:
        done = purge_rows(archive, choice, run_id=run.id)
        name_missing(archive, done.missing)
        summary = {
            "rows_removed": done.rows,
            "sources_removed": done.sources,
            "label_events": done.label_events,
            "runs_scrubbed": done.runs,
            "snapshots_deleted": done.snapshots,
            "files_deleted": done.files,
            "missing": len(done.missing),
            "unfinished_files": done.leftovers,
        }
        run.summarise(summary, done.number, style)
    if done.leftovers:
        files = "1 unfinished file" if done.leftovers == 1 else f"{done.leftovers} unfinished files"
        console.warn(
            f"{files} of writers that may still be running are left, and may tell of the same: "
            f"once none is, delete them by 'patchknn archive gc {archive} --older-than 0'."
        )
    partial = bool(done.missing and not ignore_missing) or done.leftovers > 0
    return 3 if partial else 0
