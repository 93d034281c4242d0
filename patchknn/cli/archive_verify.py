"""``patchknn archive verify``: is it whole, and what can be done where it is not?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from patchknn.cli import archive_options, console, options


def verify(
    archive: archive_options.Archive,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Go on with what is whole, and say which rows are lost."),
    ] = False,
    format: options.Format = None,
) -> int:
    """Read everything, compare every checksum and cross-reference; exit 1 where damage is found.

    One finding a line: the file, and what is wrong with it. --repair publishes a snapshot of what
    is whole, moves what is damaged, and all snapshots before, below 'damaged/' (gc deletes it once
    it is a week old), and prints each row that is lost. Example: patchknn archive verify ARCHIVE
    """
    from patchknn.archive.verify import Finding, Verifier

    style = console.output_format(format)
    count, only_index = 0, True
    with console.ProgressBar(None, "verify", "B") as bar:
        verifier = Verifier(archive, bar.advance)

        def counted() -> Iterator[Finding]:
            nonlocal count, only_index
            for finding in verifier.findings():
                count += 1
                only_index &= finding.is_derived
                yield finding

        if style == "table":
            for finding in counted():
                console.write_text(f"{finding.file}: {finding.sentence}\n")
        else:
            objects = ({"file": f.file, "problem": f.sentence} for f in counted())
            console.write_rows(objects, ("file", "problem"), style)
    looked_at = f"{verifier.rows} rows in {verifier.shards} shards, {verifier.manifests} snapshots"
    if not count:
        console.message(f"{archive} is whole: {looked_at}.")
        return 0
    if repair:
        return _repair(archive, style, only_index=only_index)
    remedy = "restore those files from a copy, or go on with what is whole by --repair."
    if only_index:
        remedy = f"its rows are whole: run 'patchknn archive index {archive} --rebuild'."
    things = "1 thing is" if count == 1 else f"{count} things are"
    console.fail(f"{things} wrong in {archive} ({looked_at}); {remedy}")
    return 1


def _repair(archive: Path, style: str, *, only_index: bool) -> int:
    from patchknn.archive.index.update import update_index
    from patchknn.archive.repair import repair
    from patchknn.archive.verify import verify_archive
    from patchknn.cli.archive_runs import ChangingRun

    with ChangingRun(archive, {"repair": True}, dry_run=False) as run:
        done = repair(archive, run_id=run.id)
        lost = ({"lost": one.id, "rows": one.rows, "shard": one.shard} for one in done.lost)
        console.write_rows(lost, ("lost", "rows", "shard"), style)
        for change in done.undone:
            console.warn(f"a {change} is lost: these rows are as they were before it.")
        if only_index or done.number is not None:
            update_index(archive, rebuild=True)
        summary = {
            "rows_lost": sum(one.rows for one in done.lost),
            "shards_rewritten": len(done.rewritten),
            "changes_lost": len(done.undone),
            "files_aside": len(done.aside),
        }
        run.summarise(summary, done.number, style)
    left = verify_archive(archive)
    for finding in left:
        console.message(f"{finding.file}: {finding.sentence}")
    if left:
        console.fail(f"{archive} is still damaged as said above: restore these files from a copy.")
    return 1 if left or done.lost or done.undone else 0
