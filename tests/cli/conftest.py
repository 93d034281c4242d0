"""An archive for the commands that look at one and change it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.runs import describe_run, write_run
from patchknn.archive.writer import ArchiveWriter

_HELPERS = Path(__file__).parents[1] / "archive" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("archive_helpers", _HELPERS)
helpers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(helpers)


@pytest.fixture(name="helpers")
def _helpers():
    """The helpers of the archive's own tests."""
    return helpers


@pytest.fixture
def archive(tmp_path):
    """12 rows as Zarr, 12 as HDF5; the second run left a record."""
    bundle = helpers.build_bundle(tmp_path / "encoder")
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    for run_id, container, names in (("r1", "zarr", "ab"), ("r2", "hdf5", "cd")):
        images, slides = ([f"{n}.{suffix}" for n in names] for suffix in ("png", "svs"))
        rows = helpers.build_rows(bundle, images=images, slides=slides)
        with ArchiveWriter(path, format=container, run_id=run_id, store_paths=True) as writer:
            writer.add(rows)
            writer.publish()
    write_run(path, "r2", describe_run(["patchknn", "embed", "c d"], {}))
    return path
