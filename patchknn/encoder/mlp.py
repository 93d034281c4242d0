"""Paper B's MLP on stored features, alone or behind the backbone that made them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from patchknn.encoder.standardisation import standardisation
from patchknn.errors import ConflictError

HIDDEN, OUTPUT_DIM = 512, 256


class FeatureMLP(nn.Module):
    """Features (B, ``input_dim``) → (B, ``output_dim``) float32: standardised, then three layers.

    Zhuang 2020, section 3.2, *Deep kNN with MLP*: three layers with batch norm and ReLU on stored
    ResNet50 features. The widths are not printed; 512, 512 and 256 are chosen here. Batch norm
    and ReLU stand behind the first two layers and not behind the last, so that features may lie
    anywhere and neighbours are not told apart in the positive corner alone. ``fit_input`` sets
    the standardisation, without which (mean 0, scale 1) features pass as they are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, input_dim: int, hidden: int = HIDDEN, output_dim: int = OUTPUT_DIM) -> None:
        super().__init__()
        self.input_dim, self.hidden, self.output_dim = input_dim, hidden, output_dim
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("scale", torch.ones(input_dim))
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden, bias=False),  # batch norm shifts by itself
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, output_dim),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What makes the same MLP again, as a bundle's ``projection`` says it."""
        return {
            "kind": "mlp",
            "input_dim": self.input_dim,
            "hidden": self.hidden,
            "output_dim": self.output_dim,
        }

    def fit_input(self, features: npt.NDArray[Any]) -> None:
        """Standardise by these training features (N, ``input_dim``), float16 or wider.

        ``mean`` becomes their mean, ``scale`` their standard deviation per element (at least a
        hundredth of its root mean square over the elements). They are read in blocks and twice,
        so they may be memory-mapped. Raises ConflictError where they are of another width,
        InputError without a row or where one holds a NaN or an infinity.
        """
        self._check(features.shape)
        mean, scale = standardisation(features)
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.scale.copy_(torch.from_numpy(scale))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, ``input_dim``) → (B, ``output_dim``).

        Raises ConflictError where they are of another shape, as images are.
        """
        self._check(features.shape)
        result: Tensor = self.layers((features - self.mean) / self.scale)
        return result

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.input_dim:
            message = (
                f"This encoder takes stored features of {self.input_dim} per patch, and was given "
                f"an array of shape {tuple(shape)}; give features of the backbone it was trained "
                "on."
            )
            raise ConflictError(message)


class Chained(nn.Module):
    """A backbone and an MLP on its features, as one: images (B, 3, S, S) → (B, ``output_dim``).

    So an MLP that was trained on stored features of a known backbone embeds images at once.
    """

    def __init__(self, backbone: nn.Module, mlp: FeatureMLP) -> None:
        super().__init__()
        self.backbone = backbone
        self.mlp = mlp

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) → (B, ``output_dim``)."""
        result: Tensor = self.mlp(self.backbone(images))
        return result
