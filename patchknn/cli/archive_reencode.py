"""``patchknn archive reencode``: the same patches under another encoder."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.archive.snapshot import Snapshot
    from patchknn.bundle import Bundle

_COLUMNS = ("path", "label", "x", "y", "mpp", "name", "patient")


def reencode(
    archive: archive_options.Archive,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The archive to be made.")],
    encoder: Annotated[Path, typer.Option("--encoder", metavar="DIR", help="The new encoder.")],
    slides: options.SlidesFolder = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    at: options.At = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Make a new archive of the same patches, ids, labels and records with another encoder.

    Where only the hash or the classifier is another, stored features serve; else the images are
    embedded again from where they were, or lie below --slides by their names. Removed rows stay
    away, corrected labels stay corrected, and the label history goes along. The same command goes
    on where it was stopped. Exit 3: some images cannot be had. Example: patchknn archive reencode
    OLD NEW --encoder encoder-2
    """
    from patchknn.archive.reencode import same_features
    from patchknn.archive.snapshot import open_archive
    from patchknn.bundle import load_bundle

    snapshot, bundle = open_archive(archive, at), load_bundle(encoder)
    hash_only = same_features(snapshot.bundle(), bundle)
    style = console.output_format(format)
    if dry_run:
        summary = {
            "archive": str(new),
            "dry_run": True,
            "rows": len(snapshot),
            "sources": snapshot.n_sources,
            "from": "features" if hash_only else "images",
        }
        console.write_rows([summary], list(summary), style)
        return 0
    if hash_only:
        return _rehash(snapshot, new, bundle, style)
    if not bundle.has_backbone:
        from patchknn.errors import ConflictError

        message = (
            f"{encoder} has no network and makes other features than {archive} holds: images can "
            "only be embedded by an encoder that takes them."
        )
        raise ConflictError(message)
    return _embed(snapshot, new, encoder, slides, (batch_size, workers, device))


def _rehash(snapshot: Snapshot, new: Path, bundle: Bundle, style: str) -> int:
    from patchknn.archive.carry import carry_over
    from patchknn.archive.create import create_like
    from patchknn.archive.reencode import rehash
    from patchknn.archive.snapshot import open_archive
    from patchknn.cli.archive_runs import ChangingRun

    create_like(new, snapshot, bundle=bundle)
    before = open_archive(new).number
    with ChangingRun(new, {"from": str(snapshot.path)}, dry_run=False) as run:
        done = rehash(snapshot, new, bundle, run_id=run.id)
        carry_over(snapshot, new, action="reencode", run_id=run.id)
        number = open_archive(new).number
        summary = {"rows": done.rows, "duplicates": done.duplicates, "from": "features"}
        run.summarise(summary, number if number > before else None, style)
    return 0


def _embed(
    snapshot: Snapshot,
    new: Path,
    encoder: Path,
    slides: Path | None,
    how: tuple[int, int | None, str | None],
) -> int:
    from patchknn.archive.carry import carry_over
    from patchknn.archive.listing import list_rows
    from patchknn.cli.embed import embed
    from patchknn.files import temporary_beside

    batch_size, workers, device = how
    stored = snapshot.settings
    manifest = temporary_beside(new.with_name(f"{new.name}.csv"))
    manifest.parent.mkdir(parents=True, exist_ok=True)
    try:
        with manifest.open("w", newline="", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for row in list_rows(snapshot):
                path = _found(row.path, row.source, slides)
                place = ("", "") if row.x < 0 else (row.x, row.y)
                cells = (path, row.label, *place, row.mpp, row.source, row.patient)
                writer.writerow(["" if cell is None else cell for cell in cells])
        code = embed(
            [str(manifest)],
            archive=new,
            encoder=encoder,
            size=stored.patch_px,
            mpp=stored.mpp,
            feature_dtype=stored.feature_dtype,
            orientations=cast("Any", str(stored.orientations)),
            thumbnails=_thumbnail_px(snapshot),
            batch_size=batch_size,
            workers=workers,
            device=device,
        )
    finally:
        manifest.unlink(missing_ok=True)
    carry_over(snapshot, new, action="reencode")
    return code


def _thumbnail_px(snapshot: Snapshot) -> int | None:
    """The side of the thumbnails of the archive, None where it has none."""
    for shard in snapshot.shards:
        data = shard.thumbnail(0)
        if data is not None:
            from PIL import Image

            with Image.open(BytesIO(data)) as picture:
                return max(picture.size)
    return None


def _found(path: str, name: str, slides: Path | None) -> str:
    """Where a source lies now: below ``slides`` by name or file name, else where it was."""
    if slides is not None:
        for candidate in (slides / name, slides / Path(path).name):
            if candidate.is_file():
                return str(candidate.absolute())
    return path
