"""What a run of slide training leaves: models, log and predictions as one directory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchknn.files import errors_named, swap_directory, temporary_beside
from patchknn.training.identity import write_run_record
from patchknn.training.log import LOG_FILE, write_log
from patchknn.wholeslide.learning.cases import Cohort
from patchknn.wholeslide.learning.network_run import Trained
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.learning.slide_model import SlideModel, write_slide_model

PREDICTIONS_FILE = "predictions.csv"


def slide_model(
    cohort: Cohort,
    settings: SlideSettings,
    trained: Trained,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> SlideModel:
    """A trained network as a slide model for grids like the cohort's."""
    grid = cohort.cases[0].grid
    return SlideModel(
        model=settings.model,
        shape=settings.shape,
        task=trained.task,
        dim=grid.features.shape[1],
        encoder=grid.info.encoder,
        patch_px=grid.info.patch_px,
        stride_px=grid.info.stride_px,
        mpp=grid.info.mpp,
        network=trained.network,
        training={**training, "best_epoch": trained.best_epoch},
        metrics=metrics,
    )


def write_run(
    output: Path,
    models: Sequence[SlideModel],
    log: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    run: tuple[str, float],
) -> str:
    """Write the first of the models as ``output``, the others as its folds; its fingerprint.

    The directory appears as a whole, in the place of one that was there. ``run`` is the digest
    and the seconds of the run.
    """
    kept, *of_folds = models
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(output)
    temporary.mkdir()
    try:
        with errors_named(output, temporary):
            fingerprint = write_slide_model(temporary, kept)
            for number, model in enumerate(of_folds, start=1):
                folder = temporary / "folds" / str(number)
                folder.mkdir(parents=True)
                write_slide_model(folder, model)
            write_log(temporary / LOG_FILE, log)
            if predictions:
                write_log(temporary / PREDICTIONS_FILE, predictions)
            write_run_record(temporary, *run)
            swap_directory(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return fingerprint
