"""From stain amounts to colours: Beer-Lambert, with a staining of its own for every patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchknn.simulate.canvas import Floats, Stains

# Optical-density directions of haematoxylin and eosin in R, G, B (Macenko 2009's reference).
_HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062])
_EOSIN = np.array([0.2159, 0.8012, 0.5581])


@dataclass(frozen=True)
class Staining:
    """How one patient's slides are stained and scanned.

    ``haematoxylin`` and ``eosin`` are optical densities (natural logarithm) per unit of stain
    in R, G, B; ``white`` the intensity of bare glass.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    white: tuple[float, float, float]


def draw_stainings(count: int, rng: np.random.Generator) -> list[Staining]:
    """Stainings that differ in hue, intensity and balance of both dyes, spread over the range.

    Intensities are stratified: with few patients chance alone would make some of them alike.
    """
    strength = np.exp(_stratified(count, rng) * 0.34)
    balance = np.exp(_stratified(count, rng) * 0.34)
    warmth = _stratified(count, rng)
    stainings = []
    for patient in range(count):
        stain_h = _tilted(_HAEMATOXYLIN, 0.05 * warmth[patient], rng)
        stain_e = _tilted(_EOSIN, 0.07 * warmth[patient], rng)
        amount_h = strength[patient] * balance[patient]
        amount_e = strength[patient] / balance[patient]
        white = 243 + rng.uniform(-6, 6) + rng.uniform(-3, 3, 3)
        stainings.append(
            Staining(
                _triple(stain_h * amount_h),
                _triple(stain_e * amount_e),
                _triple(np.minimum(white, 252)),
            )
        )
    return stainings


def to_rgb(stains: Stains, staining: Staining, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Stain amounts (height, width) → (height, width, 3) uint8, with the camera's noise."""
    height, width = stains.haematoxylin.shape
    image = np.empty((height, width, 3), np.uint8)
    noise = rng.standard_normal((256, width + 256), np.float32) * np.float32(1.6)
    for channel in range(3):
        density: Floats = stains.haematoxylin * np.float32(staining.haematoxylin[channel])
        density += stains.eosin * np.float32(staining.eosin[channel])
        np.negative(density, out=density)
        np.exp(density, out=density)
        density *= np.float32(staining.white[channel])
        for top in range(0, height, 256):
            rows = density[top : top + 256]
            shift = int(rng.integers(256))
            rows += noise[: len(rows), shift : shift + width]
        np.clip(density, 0, 255, out=density)
        image[..., channel] = density
    return image


def _stratified(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """``count`` numbers in -1..1, one from each of ``count`` equal parts, shuffled."""
    values = (np.arange(count) + rng.random(count)) / count * 2 - 1
    return rng.permutation(values)


def _tilted(
    direction: npt.NDArray[np.float64], warmth: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    tilted = direction + warmth * np.array([-1.0, 0.2, 0.8]) + rng.normal(0, 0.02, 3)
    tilted = np.maximum(tilted, 0.02)
    return np.asarray(tilted / np.linalg.norm(tilted))


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
