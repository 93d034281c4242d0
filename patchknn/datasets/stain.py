"""Stain jitter of H&E images: haematoxylin, eosin and residual a little stronger or weaker.

Colour deconvolution (Ruifrok and Johnston 2001) takes the optical density of a pixel apart into
stains; Tellez et al. (2018, 2019) scale and shift each stain by chance and put the pixel together
again. All of it is linear in optical density: one matrix and one offset per image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from patchknn.datasets.channels import mix_channels

# Optical densities of R, G, B per unit of haematoxylin, eosin and DAB (here: the residual), as
# measured by Ruifrok and Johnston; scikit-image's rgb_from_hed.
_RGB_FROM_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
# Black has no finite density: what stands for 0 in the logarithm, and becomes 0 again.
_DARKEST = 0.4


class StainStrength(NamedTuple):
    """Half-widths of the jitter: α from 1 ± ``sigma``, β from ± ``bias``.

    β is in natural optical density. It tints bare glass too: at its largest, for all three stains
    at once, green falls from 255 to 228 (0.05) or 162 (0.2); α leaves white exactly white.
    """

    sigma: float
    bias: float


HED_LIGHT = StainStrength(0.05, 0.05)
HED_STRONG = StainStrength(0.2, 0.2)


def stain_map(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """What stains times ``alpha`` plus ``beta``, each (B, 3) for H, E, D, do to optical density.

    Returns a matrix (B, 3, 3) and an offset (B, 3), float32, for ``restain``; 1 and 0 leave an
    image as it is. Scale of ``beta``: a stain of 1 has the optical density (natural logarithm) of
    its row of the deconvolution matrix; scikit-image's own unit is ln(10⁶) = 13.8 of these.
    """
    rgb_from_hed = torch.tensor(_RGB_FROM_HED, dtype=torch.float64)
    hed_from_rgb = torch.linalg.inv(rgb_from_hed)
    # Densities are columns here: d' = Fᵀ diag(α) F⁻ᵀ d + Fᵀ β, F having a row per stain.
    matrix = rgb_from_hed.T @ (alpha.double()[:, :, None] * hed_from_rgb.T)
    return matrix.float(), (beta.double() @ rgb_from_hed).float()


def restain(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) → uint8 (B, 3, H, W) with other amounts of stain, by ``stain_map``."""
    values = restained(images.to(torch.float32), matrix, offset)
    return values.round_().clamp_(0, 255).to(torch.uint8)


def restained(values: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """The same for grey levels as float32 (B, 3, H, W), neither rounded nor cut at 255."""
    # Base 2 is the fastest. With d = -log2(v / 255) / log2(e), and u = log2(v):
    # u' = M u + (1 - M 1) log2(255) - offset log2(e).
    white = (1 - matrix.sum(2)) * math.log2(255)
    shift = white - offset * math.log2(math.e)
    return mix_channels(values.clamp_min(_DARKEST).log2_(), matrix, shift).exp2_()
