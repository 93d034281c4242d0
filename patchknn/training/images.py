"""Images for training: held in memory where they fit, else read again whenever they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.torch_data import Batch, PatchDataset, collate
from patchknn.errors import InputError
from patchknn.jobs.cpus import available_cpus

Progress = Callable[..., Iterator[Any]]

_READ_BATCH = 128
# Starting a worker costs about as long as reading this many small images.
_WORTH_A_WORKER = 4000


class ImageStore:
    """Numbered uint8 images (3, S, S); the unreadable ones are reported once and left out.

    S is ``size``, or ``read_size``, from which windows of ``size`` are cut by chance; the middle
    window is the patch itself. ``crop`` is the share of a plain image that the patch takes
    (``PatchReader``): paper B's images of 256 px are a ``crop`` of 224/256, read at 256.

    ``unreadable`` (number → why) and ``problems`` grow as images turn out unreadable: on loading
    where all fit into ``cache_bytes``, else when their turn comes. ``check_number`` is asked
    whether they are more than ``max_bad``; reading itself goes on, since of several processes none
    may stop alone.
    """

    def __init__(
        self,
        patches: Sequence[Patch],
        size: int,
        mpp: float | None,
        *,
        crop: float = 1.0,
        read_size: int | None = None,
        default_mpp: float | None = None,
        workers: int | None = None,
        cache_bytes: int = 2 << 30,
        max_bad: int | None = None,
        on_problem: Callable[[Problem], None] = lambda _: None,
    ) -> None:
        self._patches = patches
        self._size = size if read_size is None else read_size
        self._dataset = PatchDataset(
            patches, size, mpp, crop=crop, read_size=read_size, default_mpp=default_mpp
        )
        self._workers = workers
        self._max_bad = max_bad
        self._on_problem = on_problem
        self.unreadable: dict[int, str] = {}
        self._cache: Tensor | None = None
        self._cached = len(patches) * 3 * self._size**2 <= cache_bytes

    @property
    def problems(self) -> list[Problem]:
        """The unreadable ones so far, as they were found."""
        return [Problem(self._patches[n].id, why) for n, why in self.unreadable.items()]

    def load(self, progress: Progress, check: Callable[[], None]) -> None:
        """Read everything once where it fits into memory.

        ``check`` is called after each batch, so that a signal or too many unreadable ones end it.
        """
        if not self._cached:
            return
        count = len(self._patches)
        cache = torch.empty(count, 3, self._size, self._size, dtype=torch.uint8)
        lists = [list(range(s, min(s + _READ_BATCH, count))) for s in range(0, count, _READ_BATCH)]
        for batch in progress(self._read(lists), total=len(lists), label="reading images"):
            cache[batch.indices] = batch.images
            check()
        self._cache = cache

    def readable(self, indices: Iterable[int]) -> list[int]:
        """Those of the numbers that are not known to be unreadable."""
        return [index for index in indices if index not in self.unreadable]

    def batches(self, lists: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Lists of numbers → images (B, 3, S, S) uint8 and numbers (B,), without the unreadable."""
        known = [self.readable(numbers) for numbers in lists]
        if self._cache is not None:
            for numbers in known:
                indices = torch.tensor(numbers, dtype=torch.int64)
                yield self._cache[indices], indices
            return
        for batch in self._read(known):
            good = torch.tensor([error is None for error in batch.errors], dtype=torch.bool)
            yield batch.images[good], batch.indices[good]

    def _read(self, lists: list[list[int]]) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=[numbers for numbers in lists if numbers],
            num_workers=self._worker_count(sum(map(len, lists))),
            collate_fn=collate,
            generator=torch.Generator(),  # the loader draws from it, not from the global state
        )
        loaded = iter(loader)
        for numbers in lists:
            batch = next(loaded) if numbers else self._nothing()
            for index, error in zip(batch.indices.tolist(), batch.errors, strict=True):
                if error is not None:
                    self.leave_out({index: error})
            yield batch

    def leave_out(self, found: Mapping[int, str]) -> None:
        """Take numbered images as unreadable: here, in another process or in an earlier start."""
        for index, error in found.items():
            if index not in self.unreadable:
                self.unreadable[index] = error
                self._on_problem(Problem(self._patches[index].id, error))

    def _nothing(self) -> Batch:
        images = torch.empty(0, 3, self._size, self._size, dtype=torch.uint8)
        return Batch(images, torch.empty(0, dtype=torch.int64), [])

    def check_number(self) -> None:
        """Raise InputError where none of the images can be read, or too many cannot."""
        bad, count = len(self.unreadable), len(self._patches)
        if bad == count:
            message = f"None of the {count} images can be read; the first: {self._first_reason()}"
            raise InputError(message)
        if self._max_bad is not None and bad > self._max_bad:
            message = (
                f"{bad} of {count} images cannot be read, more than --max-bad allows "
                f"({self._max_bad}); the first: {self._first_reason()}"
            )
            raise InputError(message)

    def _first_reason(self) -> str:
        # By number, not as they were found: all processes are to say the same.
        return self.unreadable[min(self.unreadable)]

    def _worker_count(self, images: int) -> int:
        if self._workers is not None:
            return self._workers
        cpus = available_cpus()
        enough = images * (self._size / 64) ** 2 >= _WORTH_A_WORKER
        return min(cpus, 16) if cpus > 1 and enough else 0
