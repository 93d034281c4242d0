"""``patchknn embed``: sources through the encoder into an archive."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchknn.cli import console, options
from patchknn.errors import UsageError

if TYPE_CHECKING:
    from patchknn.datasets.tiles import PatchSettings
    from patchknn.indexing.work import Embedding


def embed(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...",
            help="Images, folders, manifests (CSV, TSV, Parquet with path[,label,patient,split,"
            "name,x,y,mpp]), slides, tile sets, or - for paths on stdin.",
        ),
    ],
    *,
    archive: Annotated[
        Path, typer.Option("--archive", "-a", metavar="ARCHIVE", help="Made if there is none.")
    ],
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", "-e", metavar="ENCODER", help="Default: the archive's own."),
    ] = None,
    format: Annotated[
        Literal["zarr", "hdf5"], typer.Option("--format", help="How shards are stored.")
    ] = "zarr",
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="PX", min=8, help="Patch size [the encoder's input size]."),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp", min=0.05, max=20.0, help="Target µm per pixel of slides [the encoder's]."
        ),
    ] = None,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    image_mpp: options.ImageMpp = None,
    min_tissue: options.MinTissue = 0.5,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Store the classes that are known.")
    ] = True,
    split: options.Split = None,
    thumbnails: Annotated[
        int | None,
        typer.Option("--thumbnails", metavar="PX", min=8, help="Also store JPEGs of that size."),
    ] = None,
    feature_dtype: Annotated[
        str | None,
        typer.Option(
            "--feature-dtype",
            metavar="float16|float32",
            help="How a new archive stores features [float16].",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="float32|bfloat16",
            help="Of the encoder in a new archive [what its bundle says].",
        ),
    ] = None,
    orientations: Annotated[
        Literal["1", "2", "4", "8"] | None,
        typer.Option(
            "--orientations",
            help="In a new archive, features are means over so many flips and turns of a patch, "
            "of its queries too: better neighbours for that many times the work [1].",
        ),
    ] = None,
    backbone: Annotated[
        bool,
        typer.Option("--backbone/--no-backbone", help="Copy the backbone into a new archive."),
    ] = True,
    slides: options.SlidesFolder = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    compile: options.Compile = False,
    publish_every: Annotated[
        float,
        typer.Option(
            "--publish-every", metavar="SECONDS", min=0, help="What a killed process may lose."
        ),
    ] = 300.0,
    retries: options.Retries = 1,
    only_failed: options.OnlyFailed = False,
    dask: options.Dask = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Files that have changed take the place of what they were."),
    ] = False,
    store_paths: Annotated[
        bool,
        typer.Option(
            "--store-paths",
            help="Keep absolute paths; default: only those beside the archive, relative to it.",
        ),
    ] = False,
    private: options.Private = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say at the end where the time went, on stderr.")
    ] = False,
    dry_run: options.DryRun = False,
) -> int:
    """Embed images, slides and tile sets, and publish their features and codes in an archive.

    Sources that the archive has with the same content are skipped: after an interruption the
    same command goes on. It may be started many times at once, on any machine: each slide, and
    each block of images, is done by one of them, the largest slides first ('patchknn jobs status
    ARCHIVE' tells how far they are). Prints one summary; inputs that fail are named on stderr
    (exit 3; 1 where all of them fail).
    """
    from patchknn.archive.create import create_archive
    from patchknn.archive.settings import SETTINGS_FILE, read_settings
    from patchknn.bundle import load_bundle
    from patchknn.datasets.listing import choose_mpp
    from patchknn.datasets.tiles import PatchSettings
    from patchknn.files import keep_private

    if profile and dask is not None:
        message = "--profile is of what this process does, and with --dask others embed."
        raise UsageError(message)
    if private:
        keep_private()
    existing = read_settings(archive) if (archive / SETTINGS_FILE).is_file() else None
    if encoder is None and existing is None:
        message = f"{archive} is not an archive yet: give --encoder ENCODER to make one."
        raise UsageError(message)
    bundle = load_bundle(encoder if encoder is not None else archive / "encoder")
    arguments = console.arguments(sources)
    if existing is not None:
        size = size or existing.patch_px
        mpp = mpp or existing.mpp
        precision = precision or existing.precision
        feature_dtype = feature_dtype or existing.feature_dtype
    else:
        mpp = choose_mpp(arguments, mpp or bundle.description.mpp)
    size = size or bundle.description.input_size
    patches = PatchSettings(
        size=size,
        mpp=mpp,
        labels=labels,
        slides_dir=slides,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
        image_mpp=image_mpp,
        min_tissue=min_tissue,
    )
    precision = precision or bundle.description.precision
    averaged = int(orientations or (1 if existing is None else existing.orientations))
    make_archive = partial(
        create_archive,
        archive,
        bundle,
        feature_dtype=feature_dtype or "float16",
        patch_px=size,
        mpp=patches.mpp,
        precision=precision,
        orientations=averaged,
        with_backbone=backbone,
    )
    if dry_run:
        make_archive(dry_run=True)
        return _plan(arguments, archive if existing is not None else None, patches, split)

    from patchknn.cli.embed_profile import print_profile
    from patchknn.cli.embed_run import EmbedRun
    from patchknn.encoder.devices import choose_device, limit_threads
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.build import BuildSettings
    from patchknn.indexing.profile import Stopwatch
    from patchknn.indexing.reading import ReadSettings
    from patchknn.indexing.work import EmbeddingSettings
    from patchknn.jobs.cpus import reader_processes

    # With workers elsewhere this process only looks whether the encoder is of use.
    chosen = choose_device(device if dask is None else "cpu")
    limit_threads()
    make_extractor = cache(
        lambda: FeatureExtractor.from_bundle(bundle, chosen, precision, averaged, compiled=compile)
    )
    if existing is None:  # no archive is made of an encoder that cannot be used
        make_extractor().check_size(size)
    make_archive()
    readers = reader_processes(workers, chosen.type) if dask is None else workers or 0
    how = EmbeddingSettings(
        patches=patches,
        reading=ReadSettings(size, patches.mpp, default_mpp, thumbnails, readers),
        batch_size=batch_size,
        feature_dtype=read_settings(archive).feature_dtype,
    )
    settings = BuildSettings(
        patches=patches,
        shard_format=format,
        split=split,
        publish_seconds=publish_every,
        retries=retries,
        only_failed=only_failed,
        replace=replace,
        store_paths=store_paths,
    )
    watch = Stopwatch()
    with ExitStack() as stack:
        if dask is None:
            from patchknn.indexing.local import LocalEmbedding

            embedding: Embedding = LocalEmbedding(bundle, make_extractor, how, watch)
        else:
            from patchknn.indexing.remote import ClusterEmbedding, RemoteEncoder
            from patchknn.jobs.connecting import connected

            remote = RemoteEncoder(
                *(bundle.directory.absolute(), bundle.fingerprint, device, precision, averaged),
                compiled=compile,
            )
            cluster = stack.enter_context(connected(dask, console.warn))
            embedding = ClusterEmbedding(cluster, remote, how)
        told = {"device": str(chosen), "compiled": compile, "dask": dask}
        run = EmbedRun(archive, embedding, settings, {**asdict(settings), **asdict(how), **told})
        try:
            return run.embed(arguments, watch)
        finally:
            if profile:
                print_profile(watch.figures(), chosen.type, readers)


def _plan(
    arguments: list[str], archive: Path | None, patches: PatchSettings, split: str | None
) -> int:
    from patchknn.cli.embed_run import exit_code
    from patchknn.indexing.plan import plan_build

    counts = plan_build(arguments, archive, patches, split=split, failure=console.message)
    names = ("sources", "skipped", "failed")
    summary = {"dry_run": True, **{name: getattr(counts, name) for name in names}}
    console.write_rows([summary], list(summary), console.output_format(None))
    return exit_code(counts)
