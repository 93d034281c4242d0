"""Changes of brightness, saturation, hue and contrast, as affine maps of the three channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
# RGB to YIQ, in which a change of hue is a rotation of the last two axes.
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def colour_matrix(brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Factors and turns, each (B,), as one matrix (B, 3, 3) per image, float64.

    1, 1 and 0 leave colours as they are; ``hue`` is in turns. Grey keeps its hue, and only
    ``brightness`` changes the luma.
    """
    count = len(brightness)
    angle = hue.double() * (2 * math.pi)
    grey = torch.tensor(_LUMA, dtype=torch.float64).expand(3, 3)
    saturated = grey + saturation.double()[:, None, None] * (torch.eye(3).double() - grey)
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    rotation = torch.zeros(count, 3, 3, dtype=torch.float64)
    rotation[:, 0, 0] = 1.0
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    turned: Tensor = torch.linalg.inv(yiq) @ rotation @ yiq
    return turned @ (saturated * brightness.double()[:, None, None])


def with_contrast(values: Tensor, matrix: Tensor, contrast: Tensor) -> tuple[Tensor, Tensor]:
    """``matrix``, followed by a contrast of ``contrast`` (B,) about the image's mean grey.

    ``values`` float32 (B, 3, H, W) are the images before ``matrix`` (B, 3, 3). Returns a matrix
    and an offset (B, 3) for ``mix_channels``.
    """
    # Rows in float32, then their sums in float64: the mean does not hang on how the work is cut.
    rows, columns = values.shape[2:]
    mean = values.sum(3).double().sum(2) / (rows * columns)
    mixed = (matrix.double() * mean[:, None, :]).sum(2)
    red, green, blue = _LUMA
    luma = red * mixed[:, 0] + green * mixed[:, 1] + blue * mixed[:, 2]
    offset = (luma * (1 - contrast.double())).float()
    return matrix * contrast[:, None, None], offset[:, None].expand(-1, 3)
