"""Batches of patches as pixels: read by other processes or by threads, in order, a few ahead."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from patchknn.datasets.images import PatchReader, Pixels
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.torch_data import explain
from patchknn.errors import PatchknnError
from patchknn.jobs.ahead import made_ahead

_PREFETCHED = 2  # batches that wait, per reader
_THUMBNAIL_QUALITY = 85

Batch = Sequence[Patch | Problem]


@dataclass(frozen=True)
class ReadSettings:
    """How patches are read: ``size`` px at ``mpp`` µm/px, thumbnails of ``thumbnail_px``.

    ``default_mpp`` serves slides that have none; ``workers`` reader processes, 0 for none, or
    with ``threads`` so many threads: where a process may not start others.
    """

    size: int
    mpp: float | None
    default_mpp: float | None = None
    thumbnail_px: int | None = None
    workers: int = 0
    threads: bool = False


class Read(NamedTuple):
    """A batch as read: uint8 (G, S, S, 3) of the good patches; an error or None for each.

    ``reader`` is the process that read it, in ``seconds``.
    """

    images: Tensor
    errors: list[str | None]
    thumbnails: list[bytes | None]
    reader: int
    seconds: float


def read_batches(
    batches: Iterator[Batch], settings: ReadSettings, crop: float, *, pinned: bool = False
) -> Iterator[Read]:
    """What is read of each batch, in order; ``crop`` of plain images, as PatchReader has it.

    Batches are drawn ahead by a few per reader. ``pinned``: in memory that a GPU can copy from.
    Raises PatchknnError where a reader process dies.
    """
    if settings.threads and settings.workers:
        return _read_by_threads(batches, settings, crop, pinned=pinned)
    return _read_by_processes(batches, settings, crop, pinned=pinned)


def _read_by_processes(
    batches: Iterator[Batch], settings: ReadSettings, crop: float, *, pinned: bool
) -> Iterator[Read]:
    # Starting processes for a single batch would take longer than reading it.
    first = list(islice(batches, 2)) if settings.workers else []
    workers = settings.workers if len(first) > 1 else 0
    loader: DataLoader[Any] = DataLoader(
        _Reader(settings, crop),
        batch_sampler=chain(first, batches),  # type: ignore[arg-type]  # patches are the indices
        collate_fn=_collate,
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pinned,
    )
    yield from _guarded(loader)


def _read_by_threads(
    batches: Iterator[Batch], settings: ReadSettings, crop: float, *, pinned: bool
) -> Iterator[Read]:
    own = threading.local()

    def read(batch: Batch) -> Read:
        if not hasattr(own, "reader"):
            own.reader = _Reader(settings, crop)
        done: Read = own.reader.__getitems__(batch)
        return done._replace(images=done.images.pin_memory()) if pinned else done

    return made_ahead(read, batches, settings.workers, _PREFETCHED * settings.workers)


class _Reader(Dataset[Any]):
    """Reads whole batches, given patches instead of their numbers."""

    def __init__(self, settings: ReadSettings, crop: float) -> None:
        self._settings = settings
        self._patches = PatchReader(
            settings.size, settings.mpp, crop=crop, default_mpp=settings.default_mpp
        )

    def __getitem__(self, patch: Patch | Problem) -> Read:
        return self.__getitems__([patch])

    def __getitems__(self, batch: Sequence[Patch | Problem]) -> Read:
        began = time.perf_counter()
        good = [item for item in batch if isinstance(item, Patch)]
        pixels = iter(self._patches.read_all(good))
        images = self._room(len(good))
        filled = images.numpy()
        count = 0
        errors: list[str | None] = []
        thumbnails: list[bytes | None] = []
        for item in batch:
            result = next(pixels) if isinstance(item, Patch) else None
            picture = result if isinstance(result, np.ndarray) else None
            if picture is not None:
                filled[count] = picture
                count += 1
                errors.append(None)
            elif isinstance(item, Problem):
                errors.append(item.error)
            elif isinstance(result, PatchknnError | OSError):
                errors.append(explain(result))
            thumbnails.append(self._thumbnail(picture))
        seconds = time.perf_counter() - began
        return Read(images[:count], errors, thumbnails, os.getpid(), seconds)

    def _room(self, count: int) -> Tensor:
        size = self._settings.size
        images = torch.empty(count, size, size, 3, dtype=torch.uint8)
        # Filled where the other process will look, pixels are not copied once more to get there.
        if count and get_worker_info() is not None:
            images.share_memory_()  # type: ignore[no-untyped-call]
        return images

    def _thumbnail(self, picture: Pixels | None) -> bytes | None:
        side = self._settings.thumbnail_px
        if side is None or picture is None:
            return None
        from PIL import Image

        file = BytesIO()
        image = Image.fromarray(picture)
        if side < image.width:
            image = image.resize((side, side), Image.Resampling.BILINEAR)
        image.save(file, "JPEG", quality=_THUMBNAIL_QUALITY)
        return file.getvalue()


def _collate(read: Any) -> Any:
    return read


def _start_worker(_: int) -> None:
    # Ctrl-C and a scheduler's signals reach the whole group: the parent decides what becomes of
    # the batches in hand, and the readers end with it.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)


def _guarded(loader: DataLoader[Any]) -> Iterator[Read]:
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        message = (
            "A reader process died, probably for want of memory (or of shared memory in "
            "/dev/shm): use fewer --workers, or --workers 0."
        )
        raise PatchknnError(message) from None
