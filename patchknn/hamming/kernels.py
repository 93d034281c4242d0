"""Which search kernels serve: the C extension with one instruction set, or NumPy."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from types import ModuleType

from patchknn.errors import UsageError

NAMES = ("numpy", "portable", "avx2", "avx512")
_VARIABLE = "PATCHKNN_KERNELS"


class _Choice:
    """What is in use; settled when it is first asked for."""

    name: str | None = None


def available() -> tuple[str, ...]:
    """The kernels that this machine runs, the fastest last; numpy always does."""
    module, _ = _load()
    return ("numpy",) if module is None else ("numpy", *module.available())


def chosen() -> str:
    """The kernels in use: what PATCHKNN_KERNELS names, else the fastest.

    Raises UsageError where the variable names kernels that are not there.
    """
    if _Choice.name is None:
        _select(os.environ.get(_VARIABLE) or available()[-1])
    return _Choice.name or "numpy"


def extension() -> ModuleType | None:
    """The C extension, or None where NumPy serves."""
    return None if chosen() == "numpy" else _load()[0]


def why_not() -> str | None:
    """Why there are no C kernels, in a sentence; None where there are."""
    return _load()[1]


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Use other kernels for what is made inside this context; UsageError if they are not there."""
    before = chosen()
    _select(name)
    try:
        yield
    finally:
        _select(before)


def _load() -> tuple[ModuleType | None, str | None]:
    try:
        return importlib.import_module("patchknn.hamming._kernels"), None
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        why = "they were not built; reinstall with a C compiler" if missing else str(error)
        return None, f"The C kernels are not there: {why}."


def _select(name: str) -> None:
    module, why = _load()
    if name not in available():
        reason = why or f"This machine runs {', '.join(available())}."
        message = f"{_VARIABLE}={name}: no such kernels here. {reason}"
        raise UsageError(message)
    if module is not None and name != "numpy":
        module.select(name)
    _Choice.name = name
