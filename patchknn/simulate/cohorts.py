"""Slides as grids of vectors whose label hangs on rare tissue, for models of whole slides.

No picture is drawn: each place of a slide has the vector of its tissue, with noise, as if an
encoder had seen it. Slides differ in how much of which tissue they hold and in their staining (an
offset of all vectors of a slide), so that the mean over a slide says little of a rare one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_HAZARD = 2.0  # the log hazard of a burden as large as the settings say, against none


@dataclass(frozen=True)
class CohortSettings:
    """``rare`` is the share of a positive slide's tissue that makes it positive; 0: a null cohort.

    From slide to slide it lies between half and one and a half times that share.

    Slides have ``side`` places in width and height at most, vectors of ``dim``, ``distance``
    between tissues and ``staining`` between slides, where the noise of a place is 1 per element.
    Patients have one or two slides of one label.
    """

    slides: int = 100
    rare: float = 0.05
    dim: int = 32
    side: int = 32
    tissues: int = 6
    distance: float = 6.0
    staining: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class SimulatedSlide:
    """Vectors (D, H, W), zero off tissue, ``mask`` and where the rare tissue is (H, W).

    ``label`` is 0 or 1; ``burden`` is the share of rare tissue, 0 of a negative slide. ``time``
    is exponential, shorter the larger the burden, and ``event`` false where it was censored.
    """

    name: str
    patient: str
    label: int
    burden: float
    time: float
    event: bool
    features: Floats
    mask: npt.NDArray[np.bool_]
    rare: npt.NDArray[np.bool_]


def simulate_cohort(settings: CohortSettings) -> Iterator[SimulatedSlide]:
    """One slide after the other, the same for the same settings; half of the labels are 1."""
    rng = np.random.default_rng(settings.seed)
    centres = rng.normal(size=(settings.tissues + 1, settings.dim))
    centres *= settings.distance / np.sqrt(2) / np.linalg.norm(centres, axis=1, keepdims=True)
    patient = 0
    for number in range(settings.slides):
        patient += int(number == 0 or rng.random() < 0.7)
        label = patient % 2
        yield _slide(settings, rng, centres, (number, patient, label))


def _slide(
    settings: CohortSettings,
    rng: np.random.Generator,
    centres: npt.NDArray[np.float64],
    identity: tuple[int, int, int],
) -> SimulatedSlide:
    number, patient, label = identity
    height, width = rng.integers(settings.side // 2, settings.side + 1, 2).tolist()
    liked = rng.gamma(0.7, size=settings.tissues)
    fields = [_field(rng, height, width) + np.log(share + 1e-6) / 2 for share in liked]
    tissue = np.argmax(fields, axis=0)
    mask = _field(rng, height, width) > -0.7
    mask[height // 2, width // 2] = True
    rare = np.zeros_like(mask)
    if label and settings.rare:
        share = settings.rare * rng.uniform(0.5, 1.5)
        wanted = max(1, round(share * int(mask.sum())))
        around = np.where(mask, _field(rng, height, width), -np.inf)
        rare.flat[np.argsort(around, axis=None)[-wanted:]] = True
        tissue = np.where(rare, settings.tissues, tissue)
    offset = settings.staining * rng.normal(size=settings.dim)
    vectors = centres[tissue] + offset + rng.normal(size=(height, width, settings.dim))
    features = np.where(mask[..., None], vectors, 0).astype(np.float32)
    burden = float(rare.sum() / mask.sum())
    name, owner = f"slide{number:03}.tiff", f"P{patient:03}"
    hazard = np.exp(_HAZARD * burden / settings.rare) if settings.rare else 1.0
    time, censored = rng.exponential(1 / hazard), rng.exponential(2.0)
    return SimulatedSlide(
        name=name,
        patient=owner,
        label=label,
        burden=burden,
        time=float(min(time, censored)),
        event=bool(time <= censored),
        features=np.moveaxis(features, 2, 0),
        mask=mask,
        rare=rare,
    )


def _field(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """A rough landscape (H, W) of patches some four places wide."""
    coarse = rng.normal(size=(-(-height // 4) + 1, -(-width // 4) + 1))
    top, left = rng.integers(0, 4, 2).tolist()
    fine = np.kron(coarse, np.ones((4, 4)))[top : top + height, left : left + width]
    return np.asarray(fine + 0.3 * rng.normal(size=(height, width)))
