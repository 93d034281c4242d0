"""The scripts of examples/multitask/ as modules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[3] / "examples" / "multitask"


@pytest.fixture
def module(monkeypatch):
    """A script by its name, as its neighbours import it."""
    monkeypatch.syspath_prepend(_FOLDER)
    return importlib.import_module


@pytest.fixture
def script():
    """The comparison, as one starts it."""
    return _FOLDER / "left_out.py"
