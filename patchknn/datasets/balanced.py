"""Class-balanced batches: k images of each of n classes, as mining inside a batch needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from patchknn.errors import InputError


class BalancedBatchSampler(Sampler[list[int]]):
    """Batches of row numbers with ``per_class`` rows of each of ``classes_per_batch`` classes.

    A class smaller than that gives all its rows, none twice in a batch. Every class, and every
    row of a class, comes up once before any comes up again. ``labels`` below 0 (none) are left
    out; an epoch has ``batches`` batches, by default as many as cover the labelled rows once.
    The same seed and epoch give the same batches. Raises InputError without a labelled row.
    """

    def __init__(
        self,
        labels: Sequence[int],
        classes_per_batch: int,
        per_class: int,
        seed: int,
        batches: int | None = None,
    ) -> None:
        values = np.asarray(labels, np.int64)
        self._rows = [np.flatnonzero(values == c) for c in np.unique(values[values >= 0])]
        if not self._rows:
            message = "No image has a label; labelled images are needed for class-balanced batches."
            raise InputError(message)
        self._classes = min(classes_per_batch, len(self._rows))
        self._per_class = per_class
        self._seed = seed
        self._epoch = 0
        sizes = [min(len(rows), per_class) for rows in self._rows]
        batch_size = sum(sizes) * self._classes / len(sizes)
        labelled = sum(len(rows) for rows in self._rows)
        self._batches = batches if batches is not None else max(1, round(labelled / batch_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self._seed, self._epoch])
        classes = _endless(np.arange(len(self._rows)), generator)
        rows = [_endless(members, generator) for members in self._rows]
        for _ in range(self._batches):
            batch: list[int] = []
            for chosen in _distinct(classes, self._classes):
                count = min(self._per_class, len(self._rows[chosen]))
                batch += _distinct(rows[chosen], count)
            yield batch


def _endless(
    values: np.ndarray[tuple[int], np.dtype[np.int64]], generator: np.random.Generator
) -> Iterator[int]:
    while True:
        yield from generator.permutation(values).tolist()


def _distinct(values: Iterator[int], count: int) -> list[int]:
    # Where one pass through the values ends inside a batch, the next may begin with one that the
    # batch already has: that one is passed over.
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        chosen[next(values)] = None
    return list(chosen)
