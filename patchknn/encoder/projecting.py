"""Stored features through the projection of a bundle: numbers in, the features to search out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from patchknn.bundle import Bundle
from patchknn.encoder.devices import choose_device
from patchknn.encoder.mlp import Chained, FeatureMLP
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import load_encoder
from patchknn.errors import ConflictError

_BATCH = 8192


class FeatureProjector:
    """A network ready to turn stored features into those that are searched.

    Batch norm uses its stored statistics, so the result for a row does not depend on its batch
    beyond rounding in the last place. ``input_dim`` and ``output_dim`` are features per patch. Of
    a backbone with an MLP behind it the MLP alone works here, on features of that backbone.
    Raises ConflictError for a network that takes nothing but images.
    """

    def __init__(self, network: EncoderNetwork, device: torch.device) -> None:
        module: nn.Module = network.backbone
        if isinstance(module, Chained):
            module = module.mlp
        if not isinstance(module, FeatureMLP | nn.Identity):
            message = "This encoder takes images, not stored features: give it images."
            raise ConflictError(message)
        self.output_dim = network.hash_layer.in_features
        self.input_dim = module.input_dim if isinstance(module, FeatureMLP) else self.output_dim
        self.device = device
        self._module = module.eval().to(device)
        self._finished = network.finished

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: torch.device | None = None) -> FeatureProjector:
        """The projector of a bundle; raises ConflictError where it takes images only."""
        description = bundle.description
        if description.input == "image" and description.projection is None:
            message = (
                f"{bundle.directory} takes images, not stored features: give it images, or use an "
                "encoder that was trained on features."
            )
            raise ConflictError(message)
        device = device or choose_device()
        return cls(load_encoder(bundle, device), device)

    def features(self, stored: npt.NDArray[Any], batch: int = _BATCH) -> npt.NDArray[np.float32]:
        """Stored features (N, ``input_dim``) float16 or float32 → (N, ``output_dim``) float32.

        They are read ``batch`` rows at a time, so they may be memory-mapped. Raises ConflictError
        where they are of another width.
        """
        if stored.ndim != 2 or stored.shape[1] != self.input_dim:
            message = (
                f"Features of shape {stored.shape} do not fit: this encoder takes stored features "
                f"of {self.input_dim} per patch."
            )
            raise ConflictError(message)
        result = np.empty((len(stored), self.output_dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(stored), batch):
                rows = np.array(stored[start : start + batch], np.float32)
                projected = self._finished(self._module(torch.from_numpy(rows).to(self.device)))
                result[start : start + batch] = projected.cpu().numpy()
        return result
