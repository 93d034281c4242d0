"""What a network is fed with: images held as bytes, augmented and normalised batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from patchknn.datasets.augmentation import AUGMENTATIONS, Augment
from patchknn.datasets.patches import Problem
from patchknn.datasets.windows import centre_window
from patchknn.encoder.inference import normalise
from patchknn.training.images import ImageStore

Progress = Callable[..., Iterator[Any]]


class Inputs(Protocol):
    """Numbered things to learn from, images or stored features."""

    @property
    def problems(self) -> list[Problem]:
        """The unreadable ones so far."""

    def load(self, progress: Progress, check: Callable[[], None]) -> None:
        """Read what fits into memory."""

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Why, by number."""

    def leave_out(self, found: Mapping[int, str]) -> None:
        """Take these as unreadable too."""

    def check_number(self) -> None:
        """Raise InputError where too many are unreadable."""

    def batches(self, lists: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Lists of numbers → what is held of them, and the numbers (B,) that can be read."""

    def varied(
        self, held: Tensor, places: Sequence[int], count: int, generator: torch.Generator
    ) -> Tensor:
        """What the network learns from: ``held`` are rows ``places`` of a batch of ``count``."""

    def plain(self, held: Tensor) -> Tensor:
        """What the network sees when it is judged."""


class ImageInputs:
    """Images of a store: uint8 (B, 3, R, R) held → float32 (B, 3, S, S) normalised."""

    def __init__(
        self,
        store: ImageStore,
        size: int,
        recipe: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._store, self._size = store, size
        self._mean, self._std = tuple(mean), tuple(std)
        self._augment = Augment(AUGMENTATIONS[recipe], size)

    @property
    def problems(self) -> list[Problem]:
        """The unreadable images so far."""
        return self._store.problems

    def load(self, progress: Progress, check: Callable[[], None]) -> None:
        """Read all images where they fit into memory."""
        self._store.load(progress, check)

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Why, by number."""
        return self._store.unreadable

    def leave_out(self, found: Mapping[int, str]) -> None:
        """Take these as unreadable too."""
        self._store.leave_out(found)

    def check_number(self) -> None:
        """Raise InputError where too many are unreadable."""
        self._store.check_number()

    def batches(self, lists: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Lists of numbers → images (B, 3, R, R) uint8 and the numbers (B,) that can be read."""
        return self._store.batches(lists)

    def varied(
        self, held: Tensor, places: Sequence[int], count: int, generator: torch.Generator
    ) -> Tensor:
        """Augmented and normalised; chance is drawn for the whole batch, so that the slices of
        several processes are together what one process makes of it.
        """
        parameters = self._augment.draw(count, generator)
        return self._network_input(self._augment.apply(held, parameters[list(places)]))

    def plain(self, held: Tensor) -> Tensor:
        """The centre, normalised."""
        return self._network_input(centre_window(held, self._size))

    def _network_input(self, images: Tensor) -> Tensor:
        inputs = normalise(images, self._mean, self._std)
        return inputs.contiguous(memory_format=torch.channels_last)


class FeatureInputs:
    """Stored features (N, D), float16 or float32, as float32 rows; nothing is varied."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    @property
    def problems(self) -> list[Problem]:
        """None: what could not be read was said on reading."""
        return []

    def load(self, progress: Progress, check: Callable[[], None]) -> None:
        """Nothing: they are in memory."""

    @property
    def unreadable(self) -> Mapping[int, str]:
        """None."""
        return {}

    def leave_out(self, found: Mapping[int, str]) -> None:
        """Nothing: there is nothing to read."""

    def check_number(self) -> None:
        """Nothing."""

    def batches(self, lists: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Lists of numbers → features (B, D) and the numbers (B,)."""
        for numbers in lists:
            indices = torch.tensor(list(numbers), dtype=torch.int64)
            yield self._features[indices], indices

    def varied(
        self,
        held: Tensor,
        places: Sequence[int],  # noqa: ARG002
        count: int,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> Tensor:
        """The features themselves."""
        return held.float()

    def plain(self, held: Tensor) -> Tensor:
        """The features themselves."""
        return held.float()
