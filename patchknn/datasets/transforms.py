"""Augmentation of whole batches on the fly: orientation, field and colour, drawn per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from patchknn.encoder.inference import normalise

__all__ = ["TrainingAugmentation", "normalise"]

_LUMA = (0.299, 0.587, 0.114)
# RGB to YIQ, in which a change of hue is a rotation of the last two axes.
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class TrainingAugmentation(nn.Module):
    """Flips and right-angle rotations, a mild crop, and colour jitter, each drawn per image.

    Tissue has no up and no left: all eight orientations are equally likely. ``crop`` is the
    smallest share of the side kept (the shift is random too); ``brightness``, ``contrast`` and
    ``saturation`` are factors from 1 ± the figure, ``hue`` an angle of ± that share of a turn.
    """

    def __init__(
        self,
        *,
        crop: float = 0.85,
        brightness: float = 0.15,
        contrast: float = 0.15,
        saturation: float = 0.15,
        hue: float = 0.03,
    ) -> None:
        super().__init__()
        self.crop, self.hue = crop, hue
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (B, 3, S, S) → uint8 (B, 3, S, S); a seeded CPU ``generator`` reproduces it."""
        values = images.to(torch.float32)
        values = self._moved(values, generator)
        values = self._coloured(values, generator)
        return values.round_().clamp_(0, 255).to(torch.uint8)

    def _moved(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        count = len(values)
        orientation = torch.randint(0, 8, (count,), generator=generator)
        scale = _uniform(count, self.crop, 1.0, generator)
        shift = _uniform((count, 2), -1.0, 1.0, generator) * (1 - scale)[:, None]
        turn = (orientation % 4) * (math.pi / 2)
        cosine, sine = turn.cos().round(), turn.sin().round()
        flip = torch.where(orientation < 4, 1.0, -1.0)
        theta = torch.stack(
            [
                torch.stack([scale * cosine * flip, -scale * sine, shift[:, 0]], 1),
                torch.stack([scale * sine * flip, scale * cosine, shift[:, 1]], 1),
            ],
            1,
        ).to(values.device)
        grid = nn.functional.affine_grid(theta, list(values.shape), align_corners=False)
        return nn.functional.grid_sample(
            values, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )

    def _coloured(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        # Brightness, saturation and hue are linear maps of RGB, contrast an affine one about the
        # image's mean grey: one 3×3 matrix and one offset per image do all four.
        count = len(values)
        bright = _uniform(count, 1 - self.brightness, 1 + self.brightness, generator)
        contrast = _uniform(count, 1 - self.contrast, 1 + self.contrast, generator)
        saturation = _uniform(count, 1 - self.saturation, 1 + self.saturation, generator)
        angle = _uniform(count, -self.hue, self.hue, generator) * (2 * math.pi)
        luma = torch.tensor(_LUMA)
        grey = luma.expand(3, 3)
        saturated = grey + saturation[:, None, None] * (torch.eye(3) - grey)
        yiq = torch.tensor(_YIQ)
        rotation = torch.zeros(count, 3, 3)
        rotation[:, 0, 0] = 1.0
        rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
        rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
        matrix = torch.linalg.inv(yiq) @ rotation @ yiq @ saturated * bright[:, None, None]
        matrix = matrix.to(values.device)
        mapped = torch.einsum("bij,bjhw->bihw", matrix, values)
        mean = torch.einsum("bchw,c->b", mapped, luma.to(values.device)) / mapped[0, 0].numel()
        factor = contrast.to(values.device)
        offset = (mean * (1 - factor))[:, None, None, None]
        return mapped.mul_(factor[:, None, None, None]).add_(offset)


def _uniform(
    shape: int | tuple[int, ...], low: float, high: float, generator: torch.Generator | None
) -> Tensor:
    size = (shape,) if isinstance(shape, int) else shape
    return torch.rand(size, generator=generator) * (high - low) + low
