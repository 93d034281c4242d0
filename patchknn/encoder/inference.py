"""Batched inference: 8-bit images to float32 features."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchknn.bundle import Bundle
from patchknn.encoder.devices import choose_device
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.orientations import ORIENTATIONS, orientations
from patchknn.encoder.pending import DeviceSeconds, Marks, Pending
from patchknn.encoder.saving import load_encoder
from patchknn.errors import ConflictError, UsageError

PRECISIONS = ("float32", "bfloat16")
# What lies between the layers of so few images stays in the caches: 10 to 20 % faster.
_CPU_CHUNK = 16


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, S, S) → float32 (B, 3, S, S): (x / 255 - mean) / std per channel."""
    # Without non_blocking each of the two would wait for all the work before it.
    scale, shift = (v.to(images.device, non_blocking=True) for v in _scale_and_shift(mean, std))
    return images.to(torch.float32).mul_(scale).sub_(shift)


def _scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    scale = torch.tensor(std).mul_(255.0).reciprocal_().view(1, 3, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1)
    return scale, shift


class FeatureExtractor:
    """A network ready to turn batches of images into features.

    ``crop`` is the share of a plain image that it is to be given: whoever reads images for it asks.
    ``precision`` float32, or bfloat16 by autocast; features leave as float32 either way. The
    result for an image does not depend on its batch beyond rounding in the last place, since
    batch norm uses its stored statistics. ``averaged`` is how many orientations of an image its
    features are the mean of, 1, 2, 4 or 8: it takes that many times as long, and no more memory;
    with ``apart`` they are not that mean but one after the other, (B, averaged · D). With
    ``compiled`` torch.compile makes the network over for this machine: slow to start, then
    faster, and the features the same but for rounding.
    """

    def __init__(
        self,
        network: EncoderNetwork,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        precision: str = "float32",
        *,
        crop: float = 1.0,
        averaged: int = 1,
        apart: bool = False,
        compiled: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            message = f"--precision {precision} is unknown; use {' or '.join(PRECISIONS)}."
            raise UsageError(message)
        if averaged not in ORIENTATIONS:
            message = f"--orientations {averaged} is none of {', '.join(map(str, ORIENTATIONS))}."
            raise UsageError(message)
        self.device = device
        self.precision = precision
        self.crop = crop
        self.averaged = averaged
        self._apart = apart
        self._network = network.eval().to(device)
        self._network.backbone.to(memory_format=torch.channels_last)
        self._scale, self._shift = (v.to(device) for v in _scale_and_shift(mean, std))
        self._forward: Callable[[Tensor], Tensor] = self._network.features
        if compiled:
            self._forward = torch.compile(self._network.features)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        device: torch.device | None = None,
        precision: str | None = None,
        averaged: int = 1,
        *,
        apart: bool = False,
        compiled: bool = False,
    ) -> FeatureExtractor:
        """The extractor of a bundle, at the bundle's precision unless another is asked for.

        Raises ConflictError where the bundle takes stored features; ``projecting`` is for those.
        """
        device = device or choose_device()
        description = bundle.description
        if description.input != "image":
            message = (
                f"{bundle.directory} takes stored features of {description.input_dim} per patch, "
                "not images: give it features, or use an encoder that has a backbone."
            )
            raise ConflictError(message)
        network = load_encoder(bundle, device)
        precision = precision or description.precision
        mean, std, crop = description.mean, description.std, description.crop
        return cls(
            *(network, mean, std, device, precision),
            crop=crop,
            averaged=averaged,
            apart=apart,
            compiled=compiled,
        )

    def check_size(self, size: int) -> None:
        """Raise UsageError where the network cannot take images of ``size`` px."""
        image = torch.zeros(1, 3, size, size, device=self.device)
        try:
            with torch.inference_mode(), self._autocast():
                self._network.features(image)  # not compiled for a batch of one
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0].rstrip(".")
            message = f"The encoder cannot take images of {size} px ({reason}); change --size."
            raise UsageError(message) from None

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) → float32 (B, D)."""
        return self.tensor_features(torch.from_numpy(images).permute(0, 3, 1, 2))

    def tensor_features(self, images: Tensor) -> npt.NDArray[np.float32]:
        """The same from a uint8 tensor (B, 3, S, S), on any device."""
        chunk = _CPU_CHUNK if self.device.type == "cpu" else len(images)
        with torch.inference_mode():
            parts = [
                self._features(part.to(self.device, non_blocking=True))
                for part in torch.split(images, max(chunk, 1))
            ]
            result: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return result

    def start(self, images: Tensor) -> Pending:
        """The same, without waiting for a GPU: another batch may be started meanwhile.

        Images in pinned memory are copied beside the work; they may be let go at once.
        """
        if self.device.type != "cuda":
            began = time.perf_counter()
            features = self.tensor_features(images)
            return Pending(features, DeviceSeconds(0, time.perf_counter() - began))
        marks = Marks(self.device)
        with torch.inference_mode():
            marks.mark()
            batch = images.to(self.device, non_blocking=True)
            marks.mark()
            features_there = self._features(batch)
            host = torch.empty(features_there.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(features_there, non_blocking=True)
            marks.mark()
        return Pending(host.numpy(), marks=marks)

    def _features(self, batch: Tensor) -> Tensor:
        with self._autocast():
            batch = batch.contiguous(memory_format=torch.channels_last)
            inputs = batch.to(torch.float32).mul_(self._scale).sub_(self._shift)
            views = (
                self._forward(view.contiguous(memory_format=torch.channels_last)).float()
                for view in orientations(inputs, self.averaged)
            )
            if self._apart:
                return torch.cat([self._network.finished(features) for features in views], dim=1)
            features = next(views)
            for others in views:
                features += others
            return self._network.finished(features / self.averaged)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
