"""Patches as a torch Dataset: unreadable ones become messages, never exceptions in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from patchknn.datasets.images import PatchReader, Pixels
from patchknn.datasets.patches import Patch
from patchknn.errors import PatchknnError


@dataclass(frozen=True, slots=True)
class Item:
    """One patch: uint8 (3, S, S), its number, and why it could not be read (then it is black)."""

    image: Tensor
    index: int
    error: str | None


class Batch(NamedTuple):
    """Items put together: uint8 (B, 3, S, S), numbers (B,) int64, errors."""

    images: Tensor
    indices: Tensor
    errors: list[str | None]


class PatchDataset(Dataset[Item]):
    """Patches by number, for ``DataLoader(dataset, collate_fn=collate, ...)``.

    ``size`` in pixels, ``mpp`` in µm/px; ``crop`` and ``read_size`` (S of the items, where it is
    given) as in PatchReader. Any number of workers may read it; each opens slides of its own.
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
    ) -> None:
        self.patches = patches
        self._size = size if read_size is None else read_size
        self._reader = PatchReader(
            size, mpp, crop=crop, read_size=read_size, default_mpp=default_mpp
        )

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """A whole batch, as torch's loader asks for it."""
        pixels = self._reader.read_all([self.patches[index] for index in indices])
        return [self._item(int(i), result) for i, result in zip(indices, pixels, strict=True)]

    def _item(self, index: int, result: Pixels | PatchknnError | OSError) -> Item:
        if isinstance(result, np.ndarray):
            return Item(as_tensor(result), index, None)
        empty = torch.zeros(3, self._size, self._size, dtype=torch.uint8)
        return Item(empty, index, explain(result))


def as_tensor(pixels: Pixels) -> Tensor:
    """(S, S, 3) uint8 → (3, S, S), the same memory where it may be written to."""
    if not (pixels.flags.writeable and pixels.flags.c_contiguous):
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def collate(items: Sequence[Item]) -> Batch:
    """Items → Batch."""
    images = torch.stack([item.image for item in items])
    return Batch(images, torch.tensor([item.index for item in items]), [i.error for i in items])


def explain(error: PatchknnError | OSError) -> str:
    """One sentence for an input that could not be read."""
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}."
    return str(error)
