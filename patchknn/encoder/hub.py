"""The Hugging Face hub, asked with a patience that ends.

By itself huggingface_hub goes on for a minute where nothing can be reached, and for a quarter of
an hour where nothing answers: on a compute node that is how long a job would wait to fail.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from patchknn.encoder.hub_errors import has_answered, is_address, refusal
from patchknn.errors import PatchknnError

_LOGGERS = ("huggingface_hub", "timm")
_STALLED = 60.0  # seconds without a byte, after which a download by urllib is given up


@contextmanager
def asking(name: str, place: str, remedy: str) -> Iterator[None]:
    """Let timm get what belongs to the backbone ``name``; its errors become one sentence.

    ``place`` is a model on the hub (``owner/model@revision``), an address, or "" for this
    machine's disk. The hub has ``HF_HUB_ETAG_TIMEOUT`` seconds (10) to answer; without an answer
    the cache serves, and where that is cold an InputError ends with ``remedy``. Libraries say
    nothing meanwhile. Errors of the disk stay OSErrors.
    """
    silence = None
    with _quiet():
        try:
            silence = _no_answer(place)
            if silence is not None and is_address(place):
                raise silence
            with _limits(cache_only=silence is not None):
                yield
        except PatchknnError:
            raise
        except Exception as error:  # noqa: BLE001 -- the hub's own exceptions differ by its version
            raise refusal(name, place, error, silence, remedy) from None


@contextmanager
def offline() -> Iterator[None]:
    """Within it only what was downloaded before is had; nobody is asked, as by HF_HUB_OFFLINE."""
    with _limits(cache_only=True):
        yield


def _no_answer(place: str) -> Exception | None:
    """Why nothing answers there; None where something does, or where nothing need be asked."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    seconds = constants.HF_HUB_ETAG_TIMEOUT
    ask: Callable[[], Any]
    if is_address(place):
        if _is_downloaded(place):
            return None
        if constants.HF_HUB_OFFLINE:
            return ConnectionError("HF_HUB_OFFLINE is set")
        request = urllib.request.Request(place, method="HEAD")
        ask = partial(urllib.request.urlopen, request, timeout=seconds)
    elif place and not constants.HF_HUB_OFFLINE:
        repository, _, revision = place.partition("@")
        url = hf_hub_url(repository, "config.json", revision=revision or None)
        ask = partial(get_hf_file_metadata, url, timeout=seconds)
    else:
        return None
    error = _within(seconds, ask)
    return None if error is None or has_answered(error) else error


def _within(seconds: float, ask: Callable[[], Any]) -> Exception | None:
    """The error of a call, or that it took too long.

    Libraries count the seconds for each address of a name anew, and not at all for the name.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def call() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001 -- it is looked at by who waits
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=call, daemon=True).start()
    try:
        return outcome.get(timeout=seconds)
    except queue.Empty:
        return TimeoutError()


def _is_downloaded(address: str) -> bool:
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return (folder / Path(urlsplit(address).path).name).is_file()


@contextmanager
def _limits(*, cache_only: bool) -> Iterator[None]:
    from huggingface_hub import constants

    before, patience = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    constants.HF_HUB_OFFLINE = before or cache_only
    socket.setdefaulttimeout(_STALLED)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        socket.setdefaulttimeout(patience)


@contextmanager
def _quiet() -> Iterator[None]:
    # A line for each retry would drown the one sentence that says what to do.
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
