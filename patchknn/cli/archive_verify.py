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
    deep: Annotated[
        int,
        typer.Option("--deep", metavar="N", min=0, help="Also embed N patches again, and compare."),
    ] = 0,
    seed: options.Seed = 0,
    slides: options.SlidesFolder = None,
    device: options.Device = None,
    format: options.Format = None,
) -> int:
    """Read everything, compare every checksum and cross-reference; exit 1 where damage is found.

    One finding a line: the file, and what is wrong with it. --repair publishes a snapshot of what
    is whole, moves what is damaged, and all snapshots before, below 'damaged/' (gc deletes it once
    it is a week old), and prints each row that is lost. --deep finds images that are not those that
    were embedded, and another machine's encoder that sees them otherwise. Example: patchknn archive
    verify ARCHIVE --deep 100
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
        return _deep(archive, deep, seed, slides, device, style) if deep else 0
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
            console.warn(f"{change} is lost: its rows are as they were before it.")
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


def _deep(
    archive: Path, sample: int, seed: int, slides: Path | None, device: str | None, style: str
) -> int:
    from patchknn.archive.snapshot import open_archive
    from patchknn.encoder.devices import choose_device, limit_threads
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.deep import TOLERANCES, embed_again

    snapshot = open_archive(archive)
    stored, bundle = snapshot.settings, snapshot.bundle()
    limit_threads()
    extractor = FeatureExtractor.from_bundle(
        bundle, choose_device(device), stored.precision, stored.orientations
    )
    tolerance = TOLERANCES[stored.precision]
    same, absent, different, largest = 0, 0, [], 0.0
    with console.ProgressBar(min(sample, len(snapshot)), "embed again", "patch") as bar:
        for one in embed_again(
            snapshot, extractor, sample=sample, seed=seed, slides_dir=slides, advance=bar.advance
        ):
            if one.difference is None:
                absent += 1
                console.message(f"{one.id}: {one.problem}.")
                continue
            largest = max(largest, one.difference)
            same += one.difference <= tolerance
            if one.difference > tolerance:
                different.append({"id": one.id, "difference": one.difference})
    console.write_rows(different, ("id", "difference"), style)
    told = f"{same + len(different)} patches embedded again, {absent} not to be had"
    if different:
        console.fail(
            f"{len(different)} features are not those that are stored ({told}, the furthest "
            f"{largest:.2g} of its length away): the images, the encoder or this machine differ."
        )
        return 1
    console.message(f"{archive}: {told}; the furthest lies {largest:.2g} of its length away.")
    return 3 if absent else 0
