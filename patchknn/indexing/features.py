"""Patches through the encoder: read by other processes, in order, in bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchknn.datasets.patches import Patch, Problem
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.pending import Pending
from patchknn.errors import PatchknnError
from patchknn.indexing.profile import Stopwatch
from patchknn.indexing.reading import Read, ReadSettings, read_batches

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
) -> Generator[EmbeddedBatch, None, None]:
    """The same for ready-made batches, in order.

    ``batches`` is drawn ahead of the results by at most a few batches per reader process, and by
    one that a GPU has in hand. ``stopwatch`` takes down where the time goes.
    """
    watch = stopwatch or Stopwatch()
    stream = _timed(batches, watch)
    waiting: deque[Sequence[Patch | Problem]] = deque()

    def drawn() -> Iterator[Sequence[Patch | Problem]]:
        for batch in stream:
            waiting.append(batch)
            yield batch

    pinned = extractor.device.type == "cuda"
    reads = read_batches(drawn(), settings, extractor.crop, pinned=pinned)
    # A GPU gets its next batch before the last one is fetched: it never waits for Python.
    ahead = 1 if pinned else 0
    started: deque[_Started] = deque()
    for read in _awaited(reads, watch):
        watch.read(read.reader, read.seconds, len(read.errors))
        started.append(_Started(waiting.popleft(), read, _start(read.images, extractor)))
        if len(started) > ahead:
            yield _finished(started.popleft(), watch)
    while started:
        yield _finished(started.popleft(), watch)


class _Started(NamedTuple):
    """A batch in the hands of the encoder."""

    patches: Sequence[Patch | Problem]
    read: Read
    pending: Pending | None


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


def _awaited(reads: Iterator[Read], watch: Stopwatch) -> Iterator[Read]:
    preparing, waiting = watch.stages["preparing"], watch.stages["waiting"]
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
