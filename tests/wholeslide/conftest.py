"""A tiny encoder and slides for it: those of the tests of indexing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_HELPERS = Path(__file__).parents[1] / "indexing" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("indexing_helpers", _HELPERS)
_helpers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_helpers)

save_tiny_encoder = _helpers.save_tiny_encoder
encoder = _helpers.encoder
other_encoder = _helpers.other_encoder
extractor = _helpers.extractor
write_slide = _helpers.write_slide


@pytest.fixture(scope="session")
def ulps_apart():
    """How far apart two arrays of float16 values are, in units in the last place."""

    def ulps(found, expected):
        ordered = []
        for values in (found, expected):
            bits = np.ascontiguousarray(values, np.float16).view(np.int16).astype(np.int32)
            ordered.append(np.where(bits < 0, -(bits & 0x7FFF), bits))
        return np.abs(ordered[0] - ordered[1])

    return ulps
