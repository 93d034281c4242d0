"""``patchknn archive relabel``: other labels, without embedding again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchknn.cli import archive_options, console, options
from patchknn.errors import UsageError

if TYPE_CHECKING:
    from patchknn.archive.choice import Choice
    from patchknn.archive.relabel import Relabelling


def relabel(
    archive: archive_options.Archive,
    table: Annotated[
        Path | None,
        typer.Argument(metavar="[TABLE]", help="CSV or TSV with id,label and maybe by,reason."),
    ] = None,
    rename: Annotated[
        str | None, typer.Option("--rename", metavar="OLD=NEW", help="Rename a class as a whole.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="CLASS", help="Label of the rows that the options name."),
    ] = None,
    id: archive_options.Ids = None,
    slide: archive_options.Slides = None,
    patient: archive_options.Patients = None,
    label: archive_options.Labels = None,
    by: Annotated[str | None, typer.Option("--by", help="Whose judgement it is.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why.")] = None,
    ignore_missing: archive_options.IgnoreMissing = False,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Correct labels: of the patches in a table, of what options name, or of a whole class.

    An empty label in the table takes a label away. Who changed what, when and why is shown by
    'log --labels', also after 'compact' and 'gc'. What has its label already is left as it is.
    Examples: patchknn archive relabel ARCHIVE corrections.csv --by "A. Vogel"; patchknn archive
    relabel ARCHIVE --rename TUMOR=TUM; patchknn archive relabel ARCHIVE --slide s1.svs --to MUC
    """
    from patchknn.archive.choice import Choice
    from patchknn.cli.archive_runs import ChangingRun, name_missing, words_of

    choice = Choice(
        ids=words_of(id), slides=words_of(slide), patients=words_of(patient), labels=label or ()
    )
    chooses = choice.says_which or bool(choice.labels)
    if [table is not None, rename is not None, to is not None].count(True) != 1:
        message = "Give one of a table, --rename OLD=NEW, and --to CLASS."
        raise UsageError(message)
    if chooses != (to is not None):
        message = "--to CLASS needs --id, --slide, --patient or --label, and these need --to."
        raise UsageError(message)
    style = console.output_format(format)
    given = {"table": table, "rename": rename, "to": to, "by": by, "reason": reason}
    with ChangingRun(archive, given, dry_run=dry_run) as run:
        found = _relabelled(archive, table, rename, to, choice, (by, reason), run.id, dry_run)
        name_missing(archive, found.missing)
        summary = {
            "rows_relabelled": found.rows,
            "unchanged": found.unchanged,
            "missing": len(found.missing),
        }
        run.summarise(summary, found.number, style)
    return 3 if found.missing and not ignore_missing else 0


def _relabelled(
    archive: Path,
    table: Path | None,
    rename: str | None,
    to: str | None,
    choice: Choice,
    told: tuple[str | None, str | None],
    run_id: str,
    dry_run: bool,
) -> Relabelling:
    from patchknn.archive.relabel import (
        Correction,
        relabel_choice,
        relabel_patches,
        rename_class,
    )

    by, reason = told
    if table is not None:
        from patchknn.archive.corrections import read_corrections

        corrections = read_corrections(table, by=by, reason=reason)
        return relabel_patches(archive, corrections, run_id=run_id, dry_run=dry_run)
    if rename is not None:
        old, separator, new = rename.partition("=")
        if not separator or not old or not new.strip():
            message = f"--rename {rename}: say OLD=NEW."
            raise UsageError(message)
        return rename_class(archive, old, new, run_id=run_id, dry_run=dry_run)
    correction = Correction(to or None, by, reason)
    return relabel_choice(archive, choice, correction, run_id=run_id, dry_run=dry_run)
