"""Augmentation of whole batches on the fly: what is done, how strongly, and recipes by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from patchknn.datasets.channels import mix_channels
from patchknn.datasets.colour import colour_matrix, with_contrast
from patchknn.datasets.stain import HED_LIGHT, restained, stain_map
from patchknn.datasets.windows import centre_window, oriented_windows, window_corners, zoomed
from patchknn.errors import UsageError

_ORIENTATIONS = {"none": 1, "flip": 2, "dihedral": 8}
# Numbers drawn per image; and the columns that come of them: orientation, place of the window,
# side and shift of the zoom, colours, contrast, stains.
_CHANCES = 16
_COLUMNS = [1, 2, 1, 2, 9, 1, 9, 3]
# How much a CPU takes at a time, in pixels: values in its cache are changed several times faster.
_CPU_PIXELS = 8 * 224 * 224


class Augmentation(NamedTuple):
    """Strengths; by default nothing is done. ``_asdict()`` is plain JSON.

    ``orientation``: ``flip`` left and right, or ``dihedral``, the eight flips and right-angle
    rotations, equally likely. ``scale``: the smallest share of the side that a zoom keeps, at a
    place drawn by chance; 1 for none. ``shift``: of an image larger than the output, a window
    drawn by chance instead of the middle. ``brightness``, ``contrast`` (about the image's mean
    grey) and ``saturation`` are factors from 1 ± the figure, ``hue`` an angle of ± that share of a
    turn. ``stain_sigma`` and ``stain_bias``: see ``stain.StainStrength``.
    """

    orientation: Literal["none", "flip", "dihedral"] = "none"
    scale: float = 1.0
    shift: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    stain_sigma: float = 0.0
    stain_bias: float = 0.0

    @property
    def changes_colour(self) -> bool:
        """Whether brightness, contrast, saturation or hue are changed."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def changes_stain(self) -> bool:
        """Whether stains are changed."""
        return any((self.stain_sigma, self.stain_bias))


_COLOUR = Augmentation(
    orientation="dihedral",
    scale=0.85,
    shift=True,
    brightness=0.15,
    contrast=0.15,
    saturation=0.15,
    hue=0.03,
)

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "none": Augmentation(),
        # Paper B: random crop, horizontal flip.
        "flip": Augmentation(orientation="flip", shift=True),
        # Tissue has no up and no left.
        "light": Augmentation(orientation="dihedral"),
        "colour": _COLOUR,
        # HED-light but for its bias, which would tint bare glass.
        "tissue": _COLOUR._replace(stain_sigma=HED_LIGHT.sigma, stain_bias=0.01),
    }
)
"""Recipes by name."""


class Augment:
    """Applies an ``Augmentation`` to batches, on any device, giving images of ``size`` px.

    All chance is drawn on the CPU for a whole batch (``draw``): a row of parameters per image.
    ``apply`` makes the same pixels of an image and its row in whichever part of the batch they
    come, so that processes that share a batch do together exactly what one alone does. Flips,
    rotations and windows move pixels and change none. Raises UsageError for strengths that cannot
    be.
    """

    def __init__(self, augmentation: Augmentation, size: int) -> None:
        _check(augmentation)
        self.augmentation, self.size = augmentation, size

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``apply`` with parameters drawn for these images alone."""
        return self.apply(images, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Parameters of ``count`` images, float32 (count, P) on the CPU: rows to be cut as needed.

        ``generator`` is one of the CPU, by default torch's own; every recipe draws the same
        numbers from it.
        """
        strength = self.augmentation
        chance = torch.rand(count, _CHANCES, generator=generator, dtype=torch.float64)
        orientation, place, zoom, colour, stain = torch.split(chance, [1, 2, 3, 4, 6], 1)
        scale = 1 - (1 - strength.scale) * zoom[:, :1]
        brightness, saturation, hue, contrast = (colour * 2 - 1).unbind(1)
        alpha, beta = (stain * 2 - 1).chunk(2, 1)
        density = stain_map(1 + strength.stain_sigma * alpha, strength.stain_bias * beta)
        colours = colour_matrix(
            1 + strength.brightness * brightness,
            1 + strength.saturation * saturation,
            strength.hue * hue,
        )
        columns = [
            (orientation * _ORIENTATIONS[strength.orientation]).floor(),
            place,
            scale,
            (1 - scale) * (zoom[:, 1:] * 2 - 1),
            colours.flatten(1),
            1 + strength.contrast * contrast[:, None],
            density[0].flatten(1),
            density[1],
        ]
        return torch.cat([column.float() for column in columns], 1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) → uint8 (B, 3, S, S), by B rows of ``draw``.

        Works on the device of the images and never waits for it. Raises ValueError where the
        images are smaller than S.
        """
        rows = parameters.to(images.device, non_blocking=True)
        if images.device.type != "cpu":
            return self._applied(images, rows)
        step = max(_CPU_PIXELS // (images.shape[2] * images.shape[3]), 1)
        result = images.new_empty(len(images), 3, self.size, self.size)
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            result[part] = self._applied(images[part], rows[part])
        return result

    def _applied(self, images: Tensor, rows: Tensor) -> Tensor:
        strength = self.augmentation
        orientation, place, scale, shift, colours, contrast, density, offset = torch.split(
            rows, _COLUMNS, 1
        )
        pixels = self._moved(images, orientation, place)
        zooms = strength.scale < 1
        if not (zooms or strength.changes_stain or strength.changes_colour):
            return pixels
        values = pixels.to(torch.float32)
        if zooms:
            values = zoomed(values, scale[:, 0], shift)
        if strength.changes_stain:
            values = restained(values, density.view(-1, 3, 3), offset)
        if strength.changes_colour:
            matrix = colours.view(-1, 3, 3)
            values = mix_channels(values, *with_contrast(values, matrix, contrast[:, 0]))
        # A half more and the fraction cut off is rounding in one pass less.
        return values.add_(0.5).clamp_(0, 255).to(torch.uint8)

    def _moved(self, images: Tensor, orientation: Tensor, place: Tensor) -> Tensor:
        strength = self.augmentation
        if not strength.shift:
            images = centre_window(images, self.size)
        if strength.orientation == "none" and images.shape[-2:] == (self.size, self.size):
            return images
        corners = window_corners(images, self.size, place)
        return oriented_windows(images, self.size, corners, orientation[:, 0].long())


def _check(augmentation: Augmentation) -> None:
    if augmentation.orientation not in _ORIENTATIONS:
        message = (
            f"The orientation {augmentation.orientation!r} of an augmentation is unknown; use one "
            f"of {', '.join(_ORIENTATIONS)}."
        )
        raise UsageError(message)
    if not 0 < augmentation.scale <= 1:
        message = f"The scale {augmentation.scale} of an augmentation must be above 0, up to 1."
        raise UsageError(message)
    for name in ("brightness", "contrast", "saturation", "hue", "stain_sigma", "stain_bias"):
        value = getattr(augmentation, name)
        if not (math.isfinite(value) and 0 <= value <= 1):
            message = f"The {name} {value} of an augmentation must be from 0 to 1."
            raise UsageError(message)
