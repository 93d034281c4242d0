"""The choice of kernels: what PATCHKNN_KERNELS asks for, or the best there is."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from patchknn.errors import UsageError
from patchknn.hamming import kernels


def _chosen_with(value: str) -> subprocess.CompletedProcess[str]:
    program = "from patchknn.hamming import kernels; print(kernels.chosen())"
    environment = {**os.environ, "PATCHKNN_KERNELS": value}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("name", kernels.available())
def test_the_variable_forces_each(name):
    assert _chosen_with(name).stdout.strip() == name


def test_without_it_the_best_serves():
    assert _chosen_with("").stdout.strip() == kernels.available()[-1]


def test_unknown_kernels_are_refused_by_name():
    failed = _chosen_with("sse9")
    assert failed.returncode != 0
    assert "PATCHKNN_KERNELS=sse9: no such kernels here." in failed.stderr


def test_use_lasts_as_long_as_its_context():
    before = kernels.chosen()
    with kernels.use("numpy"):
        assert kernels.chosen() == "numpy"
        assert kernels.extension() is None
    assert kernels.chosen() == before


def test_without_the_extension_numpy_serves_and_says_why(monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert kernels.available() == ("numpy",)
    assert "reinstall with a C compiler" in (kernels.why_not() or "")
    with pytest.raises(UsageError, match=r"PATCHKNN_KERNELS=avx2.*reinstall"), kernels.use("avx2"):
        pass
