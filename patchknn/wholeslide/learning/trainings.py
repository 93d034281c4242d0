"""All trainings of a command: one for each fold, then that of the model that is kept."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from patchknn.wholeslide.learning.cases import Cohort
from patchknn.wholeslide.learning.folds import Fold, all_slides
from patchknn.wholeslide.learning.judging import Judged
from patchknn.wholeslide.learning.network_run import NetworkRun, Run, Trained
from patchknn.wholeslide.learning.scoring import shared_outputs
from patchknn.wholeslide.learning.settings import SlideSettings


@dataclass(frozen=True)
class Trainings:
    """What came of them, and what was said of the slides that were judged."""

    kept: Trained
    of_folds: list[Trained]
    judged: Judged

    @property
    def seconds(self) -> float:
        """Of work, over all starts."""
        return sum(trained.seconds for trained in (*self.of_folds, self.kept))


def train_folds(
    cohort: Cohort,
    settings: SlideSettings,
    folds: Sequence[Fold],
    run: Run,
    *,
    cross_validated: bool,
) -> Trainings:
    """Train on each of the folds and judge its slides; raises as ``NetworkRun.train``.

    ``cross_validated``: then a model is trained on all slides for the median of their best epochs,
    and kept; else the only one is.
    """
    judged = Judged(cohort)

    def train(fold: Fold, number: int, last_epoch: int | None = None) -> Trained:
        trained = NetworkRun(cohort, fold, settings, run, number).train(last_epoch)
        run.report(_line(fold, trained))
        grids = [cohort.cases[i].grid for i in fold.judged]
        outputs = shared_outputs(trained.network, grids, trained.task.outputs, run.ranks)
        judged.add(fold.judged, number, trained.task.scores(outputs))
        return trained

    if not cross_validated:
        return Trainings(train(folds[0], 0), [], judged)
    of_folds = [train(fold, number) for number, fold in enumerate(folds, start=1)]
    epochs = round(statistics.median(trained.best_epoch for trained in of_folds))
    return Trainings(train(all_slides(cohort), 0, epochs), of_folds, judged)


def _line(fold: Fold, trained: Trained) -> str:
    row = trained.best_row
    told = [f"loss {row['loss']:.4f}"]
    figures = {n.removeprefix("stop_"): v for n, v in row.items() if n.startswith("stop_")}
    if figures:
        told[0] += f"; on {len(fold.stop)} slides to stop by:"
        told += [f"{name} {value:.3f}" for name, value in figures.items()]
    return (
        f"{fold.name}: {len(fold.train)} slides, epoch {trained.best_epoch} of "
        f"{len(trained.rows)} kept, {', '.join(told).replace(':,', ':')}"
    )
