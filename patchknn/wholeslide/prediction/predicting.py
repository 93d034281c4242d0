"""What a slide model says of one slide, and where that comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import patch_id
from patchknn.wholeslide.grids.grid import Grid
from patchknn.wholeslide.learning.scoring import outputs_of
from patchknn.wholeslide.learning.slide_model import SlideModel
from patchknn.wholeslide.prediction.saliency import method_of, most_salient, saliency

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SlidePrediction:
    """The answer to one slide; ``answer`` is empty where it has no tissue.

    ``saliency`` (H, W) float64, ``places`` (n, 2) the most salient ones, rows and columns.
    """

    name: str
    path: Path
    grid: Grid
    answer: dict[str, Any]
    method: str
    saliency: Floats
    places: npt.NDArray[np.int64]
    explanation: dict[str, Any] = field(default_factory=dict)

    @property
    def side(self) -> int:
        """The side of a patch in level-0 pixels."""
        info = self.grid.info
        return max(1, round(info.level0_step * info.patch_px / info.stride_px))

    @property
    def label(self) -> str:
        """The answer in a word."""
        told = self.answer.get("prediction")
        return f"{told:.4g}" if isinstance(told, float) else str(told)

    def patches(self) -> list[dict[str, Any]]:
        """The most salient patches: id, level-0 corner, and how salient."""
        corners = self.grid.info.corners(self.places).tolist()
        return [
            {"id": patch_id(self.name, x, y), "x": x, "y": y, "saliency": float(value)}
            for (x, y), value in zip(corners, self.saliency[tuple(self.places.T)], strict=True)
        ]

    def as_json(self) -> dict[str, Any]:
        """One line of NDJSON."""
        told = {"slide": self.name, "patient": self.grid.info.patient}
        if not self.answer:
            return {**told, "prediction": None, "status": "no tissue"}
        shown = {"saliency": self.method, "patches": self.patches()}
        return {**told, **self.answer, "status": "done", **shown, **self.explanation}


def predict_slide(model: SlideModel, path: Path, grid: Grid, top: int) -> SlidePrediction:
    """Ask the model about a grid; ``top`` places that matter most are named.

    Raises ConflictError where the grid is not of the kind that the model was trained on.
    """
    model.check_grid(path, grid)
    answer: dict[str, Any] = {}
    values = np.zeros(grid.mask.shape)
    if grid.mask.any():
        score = model.task.scores(outputs_of(model.network, [grid], model.task.outputs))[0]
        answer = model.task.answer(score)
        values = saliency(model.network, grid, int(score.argmax()))
    places = most_salient(values, grid.mask, top)
    method = method_of(model.network)
    return SlidePrediction(grid.info.name, path, grid, answer, method, values, places)
