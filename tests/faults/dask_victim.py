"""Preloaded by a Dask worker: it stops for good in a task, once it has told that it has one.

``PATCHKNN_VICTIM`` is ``MODULE:FUNCTION=FIFO``. Without it nothing is changed.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from pathlib import Path


def _stop_in(module_name, function_name, fifo):
    module = importlib.import_module(module_name)
    usual = getattr(module, function_name)

    @functools.wraps(usual)
    def stopped(*arguments):
        Path(fifo).write_text("here")  # returns once the test has read it
        while True:
            signal.pause()

    setattr(module, function_name, stopped)


def dask_setup(_worker):
    """What Dask calls when the worker starts."""
    wanted = os.environ.get("PATCHKNN_VICTIM")
    if wanted:
        where, _, fifo = wanted.partition("=")
        _stop_in(*where.split(":"), fifo)
