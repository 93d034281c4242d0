"""The C extension where it serves, for the files that choose between it and NumPy."""

from __future__ import annotations

import importlib
import os
from types import ModuleType


def extension() -> ModuleType | None:
    """The extension, or None where it was not built or NumPy is asked for."""
    try:
        chooser = importlib.import_module("patchknn.hamming.kernels")
        if chooser.chosen() == "numpy":
            return None
    except ImportError:
        if os.environ.get("PATCHKNN_KERNELS") == "numpy":
            return None
    try:
        return importlib.import_module("patchknn.hamming._kernels")
    except ImportError:
        return None
