"""Small made-up cohorts, easy enough to be learnt in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from patchknn.simulate.cohorts import CohortSettings
from patchknn.wholeslide.grids.simulated import write_cohort


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Path]:
    """Write a cohort of 24 slides unless told otherwise; its table, beside the grids."""

    def make(name: str = "grids", suffix: str = ".h5", **changes: object) -> Path:
        usual = {"slides": 24, "rare": 0.3, "dim": 6, "side": 10, "staining": 0.1}
        settings = CohortSettings(**{**usual, **changes})
        return write_cohort(tmp_path / name, settings, suffix=suffix)

    return make
