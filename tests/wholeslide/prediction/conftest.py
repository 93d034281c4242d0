"""A slide model with weights by chance, and grids that hold the rows of an archive."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from patchknn.archive.create import create_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.wholeslide.grids.grid import Grid, GridInfo, open_grid, write_grid
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.learning.slide_model import SlideModel
from patchknn.wholeslide.models.making import make_network
from patchknn.wholeslide.tasks.classification import Classification

_SPEC = importlib.util.spec_from_file_location(
    "archive_helpers", Path(__file__).parents[2] / "archive" / "conftest.py"
)
helpers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(helpers)
DIM = helpers.DIM


@pytest.fixture
def make_grid(tmp_path: Path) -> Callable[..., Grid]:
    """Write and open a grid of 5 × 7 places, or one of given features and mask."""

    def make(features=None, mask=None, **told: object) -> Grid:
        rng = np.random.default_rng(8)
        if mask is None:
            mask = rng.random((5, 7)) < 0.6
        if features is None:
            features = rng.normal(size=(1, DIM, *mask.shape))
        usual = {
            "name": "s1.svs",
            "patch_px": 224,
            "stride_px": 224,
            "mpp": 0.5,
            "level0_mpp": 0.5,
            "level0_step": 224.0,
            "level0_size": (224 * mask.shape[1], 224 * mask.shape[0]),
            "encoder": "e",
        }
        path = tmp_path / "grids" / f"{told.get('name', 's1.svs')}.h5"
        path.parent.mkdir(exist_ok=True)
        write_grid(path, GridInfo(**{**usual, **told}), features, mask)
        return open_grid(path)

    return make


@pytest.fixture
def make_model() -> Callable[..., SlideModel]:
    """A slide model for these grids, with weights by chance."""

    def make(model: str, encoder: str = "e", classes=("no", "yes")) -> SlideModel:
        shape = SlideSettings(model=model, hidden=6).shape
        torch.manual_seed(4)
        network = make_network(model, DIM, len(classes), shape).eval()
        network.input.fit(np.random.default_rng(0).normal(0.3, 2.0, (200, DIM)))
        task = Classification("label", classes)
        return SlideModel(model, shape, task, DIM, encoder, 224, 224, 0.5, network)

    return make


@pytest.fixture
def archive(tmp_path: Path):
    """An archive of four rows for each of three slides, and the rows."""
    bundle = helpers.build_bundle(tmp_path / "encoder")
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    rows = helpers.build_rows(bundle, images=[], slides=["s1.svs", "s2.svs", "s3.svs"], tiles=4)
    with ArchiveWriter(path, format="hdf5", run_id="r") as writer:
        writer.add(rows)
        writer.publish()
    return path, bundle, rows
