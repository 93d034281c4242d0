"""``patchknn archive compact``, ``gc`` and ``rollback``: the upkeep of an archive."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from patchknn.cli import archive_options, console, options

_WEEK = 7.0


def compact(
    archive: archive_options.Archive,
    shard_format: Annotated[
        Literal["zarr", "hdf5"] | None,
        typer.Option("--shard-format", help="Of the new shards; default: what most are."),
    ] = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Write removed rows out, changed labels in, and join small shards; ids and history stay.

    Earlier snapshots keep their shards until 'gc'. Where there is nothing to do, nothing is done.
    Example: patchknn archive compact ARCHIVE
    """
    from patchknn.archive.compact import compact as compact_archive
    from patchknn.cli.archive_runs import ChangingRun

    style = console.output_format(format)
    with ChangingRun(archive, {"shard_format": shard_format}, dry_run=dry_run) as run:
        done = compact_archive(archive, format=shard_format, run_id=run.id, dry_run=dry_run)
        summary = {k: v for k, v in done._asdict().items() if k != "number"}
        run.summarise(summary, done.number, style)
    return 0


def gc(
    archive: archive_options.Archive,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="Snapshots to keep; default: all."),
    ] = None,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than", metavar="DAYS", min=0, help="Delete only what is older than this."
        ),
    ] = _WEEK,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Delete what no kept snapshot names, and what killed writers left, once it is a week old.

    With --keep older snapshots are given up, and 'rollback' reaches no further back. With
    --older-than 0 no other process may be writing. Example: patchknn archive gc ARCHIVE --keep 30
    """
    from patchknn.archive.collect import collect_garbage

    found = collect_garbage(archive, keep=keep, older_than=older_than, dry_run=dry_run)
    summary = {"archive": str(archive), **({"dry_run": True} if dry_run else {})}
    summary |= {k: v if isinstance(v, int) else len(v) for k, v in asdict(found).items()}
    console.write_rows([summary], list(summary), console.output_format(format))
    return 0


def rollback(
    archive: archive_options.Archive,
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="The snapshot, as in 'log'.")],
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Make an earlier snapshot the newest: a new one with its content; nothing is deleted.

    It can be undone by another rollback. Example: patchknn archive rollback ARCHIVE 41
    """
    from patchknn.archive.rollback import roll_back
    from patchknn.cli.archive_runs import ChangingRun

    style = console.output_format(format)
    with ChangingRun(archive, {"snapshot": number}, dry_run=dry_run) as run:
        manifest = roll_back(archive, number, run_id=run.id, dry_run=dry_run)
        counts = ("rows_added", "rows_removed", "sources_added", "sources_removed")
        summary = {name: 0 if manifest is None else getattr(manifest, name) for name in counts}
        run.summarise(summary, None if manifest is None or dry_run else manifest.number, style)
    return 0
