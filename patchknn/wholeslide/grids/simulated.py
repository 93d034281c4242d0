"""A made-up cohort as grid files and a table of its slides, to try slide models on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from patchknn.files import write_bytes
from patchknn.simulate.cohorts import CohortSettings, SimulatedSlide, simulate_cohort
from patchknn.slides.listing import stem_of
from patchknn.wholeslide.grids.grid import GridInfo, write_grid

TABLE_NAME = "slides.csv"
_COLUMNS = ("slide", "patient", "label", "burden", "time", "event")
_PATCH_PX = 224


def write_cohort(folder: Path, settings: CohortSettings, *, suffix: str = ".h5") -> Path:
    """Write a grid for each slide and ``slides.csv`` into a folder; the table's path.

    The table has ``slide``, ``patient``, ``label`` (negative or positive), ``burden`` (the share of
    rare tissue), ``time`` and ``event``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    folder.mkdir(parents=True, exist_ok=True)
    for slide in simulate_cohort(settings):
        path = folder / f"{stem_of(slide.name)}{suffix}"
        write_grid(path, _info(slide), slide.features[None], slide.mask)
        label = "positive" if slide.label else "negative"
        told = (slide.burden, slide.time, int(slide.event))
        writer.writerow([slide.name, slide.patient, label, *told])
    write_bytes(folder / TABLE_NAME, text.getvalue().encode())
    return folder / TABLE_NAME


def _info(slide: SimulatedSlide) -> GridInfo:
    height, width = slide.mask.shape
    return GridInfo(
        name=slide.name,
        patch_px=_PATCH_PX,
        stride_px=_PATCH_PX,
        mpp=0.5,
        level0_mpp=0.25,
        level0_step=2.0 * _PATCH_PX,
        level0_size=(2 * _PATCH_PX * width, 2 * _PATCH_PX * height),
        encoder="simulated",
    )
