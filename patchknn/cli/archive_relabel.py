"""``patchknn archive relabel``: other labels, without embedding again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", metavar="DIR|FILE", help="Annotations that were changed, as for tile."
        ),
    ] = None,
    min_cover: Annotated[
        float,
        typer.Option("--min-cover", min=0, max=1, help="Share a class must cover to be a label."),
    ] = 0.75,
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
    where: archive_options.Where = None,
    label: archive_options.Labels = None,
    by: Annotated[str | None, typer.Option("--by", help="Whose judgement it is.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why.")] = None,
    ignore_missing: archive_options.IgnoreMissing = False,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Correct labels: by a table, by annotations, of what options name, or of a whole class.

    An empty label in the table takes a label away, and so does an annotation that is gone. Who
    changed what, when and why is shown by 'log --labels', also after 'compact' and 'gc'. What has
    its label already is left as it is.
    Examples: patchknn archive relabel ARCHIVE corrections.csv --by "A. Vogel"; patchknn archive
    relabel ARCHIVE --rename TUMOR=TUM; patchknn archive relabel ARCHIVE --slide s1.svs --to MUC
    """
    from patchknn.archive.choice import Choice
    from patchknn.cli.archive_runs import ChangingRun, name_missing, source_filter, words_of

    choice = Choice(
        ids=words_of(id),
        slides=words_of(slide),
        patients=words_of(patient),
        labels=label or (),
        where=source_filter(archive, where),
    )
    chooses = choice.says_which or bool(choice.labels)
    ways = (table, annotations, rename, to)
    if [way is not None for way in ways].count(True) != 1:
        message = "Give one of a table, --annotations, --rename OLD=NEW, and --to CLASS."
        raise UsageError(message)
    if chooses != (to is not None):
        message = (
            "--to CLASS needs --id, --slide, --patient, --where or --label, and these need --to."
        )
        raise UsageError(message)
    style = console.output_format(format)
    given = {"table": table, "annotations": annotations, "rename": rename, "to": to}
    given |= {"where": where, "by": by, "reason": reason}
    wanted = _Wanted(table, annotations, min_cover, rename, to, choice, by, reason)
    with ChangingRun(archive, given, dry_run=dry_run) as run:
        found = _relabelled(archive, wanted, run_id=run.id, dry_run=dry_run)
        name_missing(archive, found.missing)
        summary = {
            "rows_relabelled": found.rows,
            "unchanged": found.unchanged,
            "missing": len(found.missing),
        }
        run.summarise(summary, found.number, style)
    return 3 if found.missing and not ignore_missing else 0


class _Wanted(NamedTuple):
    table: Path | None
    annotations: Path | None
    min_cover: float
    rename: str | None
    to: str | None
    choice: Choice
    by: str | None
    reason: str | None


def _relabelled(archive: Path, wanted: _Wanted, *, run_id: str, dry_run: bool) -> Relabelling:
    from patchknn.archive.relabel import (
        Correction,
        relabel_choice,
        relabel_patches,
        rename_class,
    )

    by, reason = wanted.by, wanted.reason
    if wanted.rename is not None:
        old, separator, new = wanted.rename.partition("=")
        if not separator or not old or not new.strip():
            message = f"--rename {wanted.rename}: say OLD=NEW."
            raise UsageError(message)
        return rename_class(archive, old, new, run_id=run_id, dry_run=dry_run)
    if wanted.table is not None:
        from patchknn.archive.corrections import read_corrections

        corrections = read_corrections(wanted.table, by=by, reason=reason)
        return relabel_patches(archive, corrections, run_id=run_id, dry_run=dry_run)
    if wanted.annotations is not None:
        from patchknn.archive.snapshot import open_archive
        from patchknn.indexing.annotated import corrections_by_annotations

        corrections = corrections_by_annotations(
            *(open_archive(archive), wanted.annotations),
            min_cover=wanted.min_cover,
            by=by,
            reason=reason,
        )
        return relabel_patches(archive, corrections, run_id=run_id, dry_run=dry_run)
    correction = Correction(wanted.to or None, by, reason)
    return relabel_choice(archive, wanted.choice, correction, run_id=run_id, dry_run=dry_run)
