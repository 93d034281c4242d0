"""Batched inference: 8-bit images to float32 features."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchknn.bundle import Bundle
from patchknn.encoder.devices import choose_device
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.orientations import ORIENTATIONS, orientations
from patchknn.encoder.saving import load_encoder
from patchknn.errors import ConflictError, UsageError

PRECISIONS = ("float32", "bfloat16")


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, S, S) → float32 (B, 3, S, S): (x / 255 - mean) / std per channel."""
    scale = torch.tensor(std).mul_(255.0).reciprocal_().view(1, 3, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1)
    # Without non_blocking each of the two would wait for all the work before it.
    scale, shift = (v.to(images.device, non_blocking=True) for v in (scale, shift))
    return images.to(torch.float32).mul_(scale).sub_(shift)


class FeatureExtractor:
    """A network ready to turn batches of images into features.

    ``crop`` is the share of a plain image that it is to be given: whoever reads images for it asks.
    ``precision`` float32, or bfloat16 by autocast; features leave as float32 either way. The
    result for an image does not depend on its batch beyond rounding in the last place, since
    batch norm uses its stored statistics. ``averaged`` is how many orientations of an image its
    features are the mean of, 1, 2, 4 or 8: it takes that many times as long, and no more memory.
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
        self._network = network.eval().to(device)
        self._network.backbone.to(memory_format=torch.channels_last)
        self._mean, self._std = tuple(mean), tuple(std)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        device: torch.device | None = None,
        precision: str | None = None,
        averaged: int = 1,
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
        return cls(network, mean, std, device, precision, crop=crop, averaged=averaged)

    def check_size(self, size: int) -> None:
        """Raise UsageError where the network cannot take images of ``size`` px."""
        try:
            self.features(np.zeros((1, size, size, 3), np.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0].rstrip(".")
            message = f"The encoder cannot take images of {size} px ({reason}); change --size."
            raise UsageError(message) from None

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) → float32 (B, D)."""
        return self.tensor_features(torch.from_numpy(images).permute(0, 3, 1, 2))

    def tensor_features(self, images: Tensor) -> npt.NDArray[np.float32]:
        """The same from a uint8 tensor (B, 3, S, S), on any device."""
        with torch.inference_mode(), self._autocast():
            batch = images.to(self.device, non_blocking=True)
            batch = batch.contiguous(memory_format=torch.channels_last)
            inputs = normalise(batch, self._mean, self._std)
            views = orientations(inputs, self.averaged)
            features = self._network.features(next(views)).float()
            for view in views:
                laid_out = view.contiguous(memory_format=torch.channels_last)
                features += self._network.features(laid_out).float()
            mean = self._network.finished(features / self.averaged)
            result: npt.NDArray[np.float32] = mean.cpu().numpy()
        return result

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
