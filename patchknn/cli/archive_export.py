"""``patchknn archive export``: an archive for other programs, or for others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.archive.export import Export, ExportPlan
    from patchknn.archive.export_names import Names


def export(
    archive: archive_options.Archive,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new folder, or a .parquet file; not there yet.")
    ],
    *,
    to: Annotated[
        Literal["parquet", "trident", "archive"],
        typer.Option("--to", help="Parquet, an HDF5 file per slide, or a fresh archive."),
    ],
    slide: archive_options.Slides = None,
    patient: archive_options.Patients = None,
    label: archive_options.Labels = None,
    ignore_missing: archive_options.IgnoreMissing = False,
    at: options.At = None,
    backbone: Annotated[
        bool,
        typer.Option("--backbone/--no-backbone", help="Of the encoder, to an archive."),
    ] = True,
    deidentify: Annotated[
        Path | None,
        typer.Option(
            "--deidentify",
            metavar="KEYFILE",
            help="Pseudonyms for slides and patients, made of the secret in KEYFILE.",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Export the rows as they are now: Parquet, TRIDENT's HDF5, or another archive.

    Features are the same bit for bit. OUT appears as a whole or not at all; where it is there as
    this very export (the same rows of the same snapshot under the same names), nothing is done.
    --deidentify replaces the names of slides and patients, the same in every export with that
    KEYFILE, which is made where there is none: keep it, and keep it secret. Paths, file sizes and
    times, run records, label history and attached records are left out then; class names and the
    encoder's description stay as they are. Exit 3: something that was named is not there, the rest
    is exported. Example: patchknn archive export ARCHIVE
    rows.parquet --to parquet
    """
    from patchknn.archive.choice import Choice
    from patchknn.archive.export import plan_export
    from patchknn.archive.snapshot import open_archive
    from patchknn.cli.archive_runs import name_missing, words_of
    from patchknn.errors import UsageError

    if not backbone and to != "archive":
        message = "--no-backbone belongs to --to archive: the others hold no encoder."
        raise UsageError(message)
    style = console.output_format(format)
    choice = Choice(slides=words_of(slide), patients=words_of(patient), labels=label or ())
    snapshot = open_archive(archive, at)
    kept = {"backbone": backbone} if to == "archive" else {}
    plan = plan_export(snapshot, to, choice, _names(deidentify, dry_run=dry_run), kept)
    name_missing(archive, plan.missing)
    summary: dict[str, Any] = {"archive": str(archive), "to": to, "out": str(out)}
    if dry_run:
        summary["dry_run"] = True
    summary |= {
        "snapshot": snapshot.number,
        "rows": plan.n_rows,
        "sources": plan.n_sources,
        "missing": len(plan.missing),
        "deidentified": deidentify is not None,
    }
    if not dry_run:
        done = _export(plan, to, out, backbone=backbone)
        for note in done.notes:
            console.warn(note)
        if done.is_old:
            console.message(f"{out} is this export already.")
        summary |= {"files": done.files, "bytes": done.bytes}
    console.write_rows([summary], list(summary), style)
    return 3 if plan.missing and not ignore_missing else 0


def _names(key_file: Path | None, *, dry_run: bool) -> Names:
    from patchknn.archive.export_names import Names, Pseudonyms, is_private, read_secret

    if key_file is None:
        return Names()
    if dry_run and not key_file.exists():
        return Pseudonyms(b"")  # counts alone are told, and nothing is made
    secret = read_secret(key_file)
    if not is_private(key_file):
        console.warn(f"{key_file} may be read by others: chmod 600 it.")
    return Pseudonyms(secret)


def _export(plan: ExportPlan, to: str, out: Path, *, backbone: bool) -> Export:
    if to == "parquet":
        from patchknn.archive.export_parquet import export_parquet

        return export_parquet(plan, out)
    if to == "trident":
        from patchknn.archive.export_trident import export_trident

        return export_trident(plan, out)
    from patchknn.archive.export_archive import export_archive
    from patchknn.archive.runs import describe_run

    record = describe_run(["patchknn", *sys.argv[1:]], {"archive": str(plan.snapshot.path)})
    return export_archive(plan, out, with_backbone=backbone, record=record)
