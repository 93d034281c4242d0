"""Patches through the encoder: read by other processes, in order, in bounded memory."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from patchknn.datasets.images import PatchReader, Pixels
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.torch_data import explain
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.pending import Pending
from patchknn.errors import PatchknnError
from patchknn.indexing.profile import Stopwatch

_PREFETCHED = 2  # batches that wait, per reader process
_THUMBNAIL_QUALITY = 85


@dataclass(frozen=True)
class Embedded:
    """A patch and its ``feature`` (D,) float32, or the sentence that says why there is none.

    ``thumbnail`` is a JPEG where one was asked for.
    """

    patch: Patch | Problem
    feature: npt.NDArray[np.float32] | None
    error: str | None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch: what went in, ``features`` (G, D) float32 of those without an error, in order.

    ``errors`` and ``thumbnails`` have one entry for each. To be gone through one by one, too.
    """

    patches: Sequence[Patch | Problem]
    features: npt.NDArray[np.float32]
    errors: Sequence[str | None]
    thumbnails: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.patches)

    def __iter__(self) -> Iterator[Embedded]:
        features = iter(self.features)
        for patch, error, thumbnail in zip(self.patches, self.errors, self.thumbnails, strict=True):
            yield Embedded(patch, next(features) if error is None else None, error, thumbnail)


@dataclass(frozen=True)
class ReadSettings:
    """How patches are read: ``size`` px at ``mpp`` µm/px, thumbnails of ``thumbnail_px``.

    ``default_mpp`` serves slides that have none; ``workers`` reader processes, 0 for none.
    """

    size: int
    mpp: float | None
    default_mpp: float | None = None
    thumbnail_px: int | None = None
    workers: int = 0


def embed_patches(
    items: Iterable[Patch | Problem],
    extractor: FeatureExtractor,
    *,
    size: int,
    mpp: float | None,
    batch_size: int = 64,
    workers: int = 0,
    thumbnail_px: int | None = None,
    default_mpp: float | None = None,
) -> Iterator[Embedded]:
    """Features of a stream of patches, in its order; a Problem passes through as an error.

    ``size`` in pixels at ``mpp`` µm/px, or the extractor's ``crop`` of a plain image; ``workers``
    reader processes work ahead of the encoder by a few batches. An unreadable patch, and one with
    a feature that is not finite, is an error of its own.
    """
    stream = iter(items)
    batches = iter(lambda: list(islice(stream, batch_size)), [])
    settings = ReadSettings(size, mpp, default_mpp, thumbnail_px, workers)
    for results in embed_batches(batches, extractor, settings):
        yield from results


def embed_batches(
    batches: Iterable[Sequence[Patch | Problem]],
    extractor: FeatureExtractor,
    settings: ReadSettings,
    stopwatch: Stopwatch | None = None,
) -> Iterator[EmbeddedBatch]:
    """The same for ready-made batches, in order.

    ``batches`` is drawn ahead of the results by at most a few batches per reader process, and by
    one that a GPU has in hand. ``stopwatch`` takes down where the time goes.
    """
    watch = stopwatch or Stopwatch()
    stream = _timed(batches, watch)
    # Starting processes for a single batch would take longer than reading it.
    first = list(islice(stream, 2)) if settings.workers else []
    workers = settings.workers if len(first) > 1 else 0
    waiting: deque[Sequence[Patch | Problem]] = deque()

    def drawn() -> Iterator[Sequence[Patch | Problem]]:
        for batch in chain(first, stream):
            waiting.append(batch)
            yield batch

    loader: DataLoader[Any] = DataLoader(
        _Reader(settings, extractor.crop),
        batch_sampler=drawn(),  # type: ignore[arg-type]  # the patches themselves are the indices
        collate_fn=_collate,
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=extractor.device.type == "cuda",
    )
    # A GPU gets its next batch before the last one is fetched: it never waits for Python.
    ahead = 1 if extractor.device.type == "cuda" else 0
    started: deque[_Started] = deque()
    for read in _awaited(loader, watch):
        watch.read(read.reader, read.seconds, len(read.errors))
        started.append(_Started(waiting.popleft(), read, _start(read.images, extractor)))
        if len(started) > ahead:
            yield _finished(started.popleft(), watch)
    while started:
        yield _finished(started.popleft(), watch)


class _Read(NamedTuple):
    """A batch as read: uint8 (G, S, S, 3) of the good patches; an error or None for each.

    ``reader`` is the process that read it, in ``seconds``.
    """

    images: Tensor
    errors: list[str | None]
    thumbnails: list[bytes | None]
    reader: int
    seconds: float


class _Started(NamedTuple):
    """A batch in the hands of the encoder."""

    patches: Sequence[Patch | Problem]
    read: _Read
    pending: Pending | None


class _Reader(Dataset[Any]):
    """Reads whole batches, given patches instead of their numbers."""

    def __init__(self, settings: ReadSettings, crop: float) -> None:
        self._settings = settings
        self._patches = PatchReader(
            settings.size, settings.mpp, crop=crop, default_mpp=settings.default_mpp
        )

    def __getitem__(self, patch: Patch | Problem) -> _Read:
        return self.__getitems__([patch])

    def __getitems__(self, batch: Sequence[Patch | Problem]) -> _Read:
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
        return _Read(images[:count], errors, thumbnails, os.getpid(), seconds)

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
    # Ctrl-C and a scheduler's SIGTERM reach the whole group: the parent decides what becomes of
    # the batches in hand, and the readers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


def _timed(
    batches: Iterable[Sequence[Patch | Problem]], watch: Stopwatch
) -> Iterator[Sequence[Patch | Problem]]:
    stream = iter(batches)
    while True:
        with watch.time("preparing"):
            batch = next(stream, None)
        if batch is None:
            return
        yield batch


def _awaited(loader: DataLoader[Any], watch: Stopwatch) -> Iterator[_Read]:
    preparing, waiting = watch.stages["preparing"], watch.stages["waiting"]
    reads = _guarded(loader)
    while True:
        before = preparing.seconds
        began = time.perf_counter()
        read = next(reads, None)
        # The loader draws batches while it is asked for one: that is not waiting for readers.
        drawing = preparing.seconds - before
        waiting.add(time.perf_counter() - began - drawing, len(read.errors) if read else 0)
        if read is None:
            return
        yield read


def _guarded(loader: DataLoader[Any]) -> Iterator[_Read]:
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


def _start(images: Tensor, extractor: FeatureExtractor) -> Pending | None:
    if not len(images):
        return None
    with _memory_named(images):
        return extractor.start(images.permute(0, 3, 1, 2))


def _finished(started: _Started, watch: Stopwatch) -> EmbeddedBatch:
    patches, read, pending = started
    if pending is None:
        return EmbeddedBatch(patches, np.empty((0, 0), np.float32), read.errors, read.thumbnails)
    with _memory_named(read.images):
        features = pending.result()
    seconds = pending.seconds()
    watch.stages["copying"].add(seconds.copy, len(features))
    watch.stages["forward"].add(seconds.forward, len(features))
    errors = read.errors
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        features, errors = features[finite], list(errors)
        good = [number for number, error in enumerate(errors) if error is None]
        for number in np.array(good)[~finite].tolist():
            item = patches[number]
            name = item.id if isinstance(item, Patch) else item.name
            errors[number] = (
                f"{name}: the encoder gives features that are not finite; check its weights."
            )
    return EmbeddedBatch(patches, features, errors, read.thumbnails)


@contextmanager
def _memory_named(images: Tensor) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        message = f"The GPU has too little memory for {len(images)} patches; lower --batch-size."
        raise PatchknnError(message) from None
