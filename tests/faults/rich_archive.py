"""An archive with every kind of file, large enough that its index has all of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from small_archives import add, build_bundle

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.create import create_archive
from patchknn.archive.index.update import update_index
from patchknn.archive.records_attach import attach_records
from patchknn.archive.relabel import Correction, relabel_patches, rename_class
from patchknn.archive.remove import remove_rows
from patchknn.archive.rows import Rows, Source
from patchknn.archive.runs import write_run
from patchknn.bundle import Bundle, load_bundle

DIM, BITS = 128, 32
_DIRECTIONS = 6  # features lie near few, as those of networks do: sketches help
CHANGED = 4  # the snapshot before the compaction, with shards and changes of its own


def many_rows(
    bundle: Bundle, seed: int, slides: Sequence[str], tiles: int, *, thumbnails: bool = False
) -> Rows:
    """``tiles`` rows of each slide; labels and patients in turn."""
    generator = np.random.default_rng(seed)
    n = len(slides) * tiles
    plane = np.random.default_rng(0).normal(size=(_DIRECTIONS, DIM))
    features = generator.normal(size=(n, _DIRECTIONS)) @ plane
    features = (features + generator.normal(size=(n, DIM)) / 20).astype(np.float16)
    source = np.repeat(np.arange(len(slides), dtype=np.int32), tiles)
    sources = tuple(
        Source(
            name=name,
            path=f"/data/{name}",
            size=100 + number,
            mtime_ns=number,
            quickhash=(name.encode() * 16)[:16],
            mpp=None if number % 3 else 0.5,
            patient=f"P{number % 4}" if number % 4 else None,
        )
        for number, name in enumerate(slides)
    )
    images = tuple(bytes([row % 256]) * (row % 7) for row in range(n))
    return Rows(
        features=features,
        codes=bundle.codes(features),
        coords=np.stack([np.tile(np.arange(tiles) * 224, len(slides)), source], axis=1),
        source=source,
        labels=(np.arange(n, dtype=np.int32) % 4) - 1,
        sources=sources,
        classes=("A", "B", "C"),
        thumbnails=images if thumbnails else None,
    )


def rich_archive(folder: Path) -> Path:
    """Some 2,900 rows in three shards, two of them indexed, after a compaction and changes."""
    bundle = build_bundle(folder / "encoder", bits=BITS, dim=DIM)
    path = folder / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    bundle = load_bundle(path / "encoder")
    first = many_rows(bundle, 1, [f"s{n}.svs" for n in range(26)], 100)
    add(path, first, "zarr", run_id="run-1", shard_bytes=400_000)
    relabel_patches(path, {"s1.svs@224_1": Correction("D", "Ann", "seen")}, run_id="run-2")
    remove_rows(path, Choice(slides=["s3.svs"], ids=["s4.svs@0_4"]), run_id="run-3")
    rename_class(path, "C", "E", run_id="run-4")
    update_index(path)  # what is compacted below is superseded, and serves snapshot 4
    compact(path, format="zarr", run_id="run-5")
    second = many_rows(bundle, 2, ["t1.svs", "t2.svs", "ü 3.svs"], 100, thumbnails=True)
    add(path, second, "hdf5", run_id="run-6")
    update_index(path)
    add(path, many_rows(bundle, 3, ["bare.svs"], 60), "zarr", run_id="run-7")
    remove_rows(path, Choice(slides=["t1.svs"], ids=["s5.svs@224_5"]), run_id="run-8")
    labels = {"s6.svs@0_6": Correction("F", "Bea", "wrong"), "bare.svs@0_0": Correction(None)}
    relabel_patches(path, labels, run_id="run-9")
    for number, grades in enumerate(("grade", "stage")):  # of the first one snapshot 10 tells
        table = folder / f"{grades}.tsv"
        names = [f"s{n}.svs\t{(n + number) % 4}" for n in range(26)]
        table.write_text("\n".join([f"slide\t{grades}", *names]) + "\n")
        attach_records(path, table, "slide", run_id=f"attach-{number}")
    for number in range(1, 10):
        write_run(path, f"run-{number}", {"argv": ["patchknn", f"run {number}"], "counts": {}})
    return path
