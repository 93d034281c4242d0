"""Tiny archives for processes that are killed, starved and lied to; nothing here needs pytest."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.create import create_archive
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.relabel import Correction, relabel_patches, rename_class
from patchknn.archive.remove import remove_rows
from patchknn.archive.rows import Rows
from patchknn.archive.runs import write_run
from patchknn.archive.snapshot import open_archive, patch_id
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle, load_bundle, write_bundle

Labels = dict[str, str | None]
SIZE = 32  # px of a patch

_TESTS = Path(__file__).resolve().parents[1]


def _archive_fixtures() -> Any:
    """``tests/archive/conftest.py`` under a name of its own."""
    file = _TESTS / "archive" / "conftest.py"
    spec = importlib.util.spec_from_file_location("archive_fixtures_for_faults", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_fixtures = _archive_fixtures()
build_bundle = _fixtures.build_bundle
build_rows = _fixtures.build_rows


def build_encoder(folder: Path) -> Bundle:
    """``build_bundle`` with a network that embeds images: a vision transformer without a block.

    Written without torch, which takes seconds to import.
    """
    plain = build_bundle(folder)
    dim = plain.description.feature_dim
    description = plain.description._replace(
        backbone="test_vit",
        model_args={
            "depth": 0,
            "embed_dim": dim,
            "num_heads": 1,
            "class_token": False,
            "global_pool": "avg",
            "img_size": SIZE,
        },
        input_size=SIZE,
    )
    generator = np.random.default_rng(1)
    backbone = {
        "pos_embed": np.zeros((1, 4, dim), np.float32),
        "patch_embed.proj.weight": generator.normal(size=(dim, 3, 16, 16)).astype(np.float32),
        "patch_embed.proj.bias": np.zeros(dim, np.float32),
        "fc_norm.weight": np.ones(dim, np.float32),
        "fc_norm.bias": np.zeros(dim, np.float32),
    }
    write_bundle(folder, description, plain.hash_map, backbone=backbone)
    return load_bundle(folder)


def new_archive(folder: Path, **settings: Any) -> Path:
    """An archive without rows; its encoder lies beside it."""
    bundle = build_encoder(folder / "encoder")
    create_archive(folder / "archive", bundle, patch_px=SIZE, mpp=0.5, **settings)
    return folder / "archive"


def bundle_of(path: Path) -> Bundle:
    """The archive's own encoder."""
    return load_bundle(path / "encoder")


def add(path: Path, rows: Rows, container: str = "zarr", **settings: Any) -> int | None:
    """Publish rows as ``embed`` does."""
    with ArchiveWriter(path, format=container, **settings) as writer:
        writer.add(rows)
        return writer.publish()


def labels_of_rows(rows: Rows) -> Labels:
    """What an archive holds once these rows are in it: id → label."""
    names = [rows.sources[number].name for number in rows.source.tolist()]
    words = (*rows.classes, None)
    return {
        patch_id(name, x, y): words[label]
        for name, (x, y), label in zip(
            names, rows.coords.tolist(), rows.labels.tolist(), strict=True
        )
    }


def listed(path: Path, at: int | None = None) -> Labels:
    """What a snapshot lists: id → label; no id stands there twice."""
    snapshot = open_archive(path, at)
    found: Labels = {}
    for row in list_rows(snapshot):
        assert row.id not in found, f"{row.id} is listed twice"
        found[row.id] = row.label
    assert len(found) == len(snapshot)
    return found


def worn_archive(folder: Path, names: Sequence[str] = ("", "x", "y"), **settings: Any) -> Path:
    """Zarr and HDF5 shards, both kinds of changes, compacted history, an index of two parts.

    So that every operation has something to do, and every kind of file is there.
    """
    path = new_archive(folder, **settings)
    bundle = bundle_of(path)
    for number, name in enumerate(names):
        rows = build_rows(
            bundle,
            seed=number,
            images=[f"{name}a.png", f"{name}ü.png"],
            slides=[f"{name}1.svs", f"{name}2.svs"],
            thumbnails=number == 0,
        )
        add(path, rows, ("zarr", "hdf5")[number % 2], run_id=f"run-{number}")
        if number == 0:
            relabel_patches(path, {f"{name}a.png": Correction("T", "Ann", "seen")})
            remove_rows(path, Choice(ids=[f"{name}ü.png"]), run_id="remove-0")
            update_index(path)
            compact(path, run_id="compact-0")
            update_index(path)
    remove_rows(path, Choice(ids=["a.png", "1.svs@0_896"], slides=["x2.svs"]), run_id="remove-1")
    corrections = {"xa.png": Correction("C", "Ann", "clear"), "2.svs@0_1344": Correction(None)}
    relabel_patches(path, corrections, run_id="relabel-1")
    rename_class(path, "B", "D", run_id="rename-1")
    runs = ["remove-0", "compact-0", "remove-1", "relabel-1", "rename-1"]
    for run_id in [*runs, *(f"run-{number}" for number in range(len(names)))]:
        write_run(path, run_id, {"argv": ["patchknn", run_id], "counts": {}})
    return path


def other_archive(folder: Path) -> Path:
    """A smaller archive of the same encoder and settings, to be merged."""
    path = new_archive(folder)
    rows = build_rows(bundle_of(path), seed=9, images=["o.png"], slides=["o.svs", "oo.svs"])
    add(path, rows, "hdf5")
    relabel_patches(path, {"o.png": Correction("M", "Eve", "other site")})
    remove_rows(path, Choice(ids=["o.svs@0_448"]))
    return path
