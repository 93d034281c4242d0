"""Patches through the encoder: read by other processes, in order, in bounded memory."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from patchknn.datasets.images import PatchReader, Pixels
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.torch_data import as_tensor, explain
from patchknn.encoder.inference import FeatureExtractor
from patchknn.errors import PatchknnError

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
) -> Iterator[list[Embedded]]:
    """The same for ready-made batches: one list of results per batch, in order.

    ``batches`` is drawn ahead of the results by at most a few batches per reader process.
    """
    stream = iter(batches)
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
    for read in _guarded(loader):
        yield _results(waiting.popleft(), read, extractor)


class _Read(NamedTuple):
    """A batch as read: uint8 (G, 3, S, S) of the good patches; an error or None for each."""

    images: Tensor
    errors: list[str | None]
    thumbnails: list[bytes | None]


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
        good = [item for item in batch if isinstance(item, Patch)]
        pixels = iter(self._patches.read_all(good))
        images: list[Tensor] = []
        errors: list[str | None] = []
        thumbnails: list[bytes | None] = []
        for item in batch:
            result = next(pixels) if isinstance(item, Patch) else None
            picture = result if isinstance(result, np.ndarray) else None
            if picture is not None:
                images.append(as_tensor(picture))
                errors.append(None)
            elif isinstance(item, Problem):
                errors.append(item.error)
            elif isinstance(result, PatchknnError | OSError):
                errors.append(explain(result))
            thumbnails.append(self._thumbnail(picture))
        size = self._settings.size
        stacked = torch.stack(images) if images else torch.zeros(0, 3, size, size).byte()
        return _Read(stacked, errors, thumbnails)

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


def _results(
    batch: Sequence[Patch | Problem], read: _Read, extractor: FeatureExtractor
) -> list[Embedded]:
    features = iter(_features(read.images, extractor))
    results = []
    for item, error, thumbnail in zip(batch, read.errors, read.thumbnails, strict=True):
        feature = next(features) if error is None else None
        if feature is not None and not np.isfinite(feature).all():
            name = item.id if isinstance(item, Patch) else item.name
            error = f"{name}: the encoder gives features that are not finite; check its weights."  # noqa: PLW2901
            feature = None
        results.append(Embedded(item, feature, error, thumbnail))
    return results


def _features(images: Tensor, extractor: FeatureExtractor) -> npt.NDArray[np.float32]:
    if not len(images):
        return np.empty((0, 0), np.float32)
    try:
        return extractor.tensor_features(images)
    except torch.OutOfMemoryError:
        message = f"The GPU has too little memory for {len(images)} patches; lower --batch-size."
        raise PatchknnError(message) from None
