"""The training of one network on some slides of a cohort, resumable after any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchknn.jobs.ahead import made_ahead
from patchknn.jobs.cpus import available_cpus
from patchknn.losses.terms import LossTerms
from patchknn.training.best import BestEpoch
from patchknn.training.checkpoint import Groups
from patchknn.training.descent import Descent, Learnt, Wording
from patchknn.training.epochs import Epochs, Keeping
from patchknn.training.inputs import Progress
from patchknn.training.ranks import Ranks
from patchknn.training.schedule import parameter_groups
from patchknn.wholeslide.grids.preview import sample_vectors
from patchknn.wholeslide.learning.batches import most_places, training_batch
from patchknn.wholeslide.learning.cases import Cohort
from patchknn.wholeslide.learning.folds import Fold
from patchknn.wholeslide.learning.scoring import shared_outputs
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.models.making import make_network
from patchknn.wholeslide.tasks.task import Task

# An epoch takes seconds, and a state is small; but writing it takes longer than a step.
_SECONDS_BETWEEN_SAVES = 60.0
# Vectors of each training slide by which features are standardised.
_FIT_VECTORS = 256
# Reading a batch takes a CPU longer than a GPU needs to learn from it.
_MOST_THREADS, _READ_AHEAD_BYTES = 8, 2 << 30

# Numbers of its slides, with features and mask of those of this process.
_Batch = tuple[list[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Run:
    """What all trainings of a command share: processes, precision, folder, and whom to tell.

    ``folder`` keeps their states, those of the run ``digest``. ``check`` raises StoppedError
    between two steps where an end was asked for.
    """

    ranks: Ranks
    precision: str
    folder: Path
    digest: str
    report: Callable[[str], None]
    progress: Progress
    check: Callable[[], None]


@dataclass(frozen=True)
class Trained:
    """A network at its best epoch, the task it answers, and the log of its training."""

    network: nn.Module
    task: Task
    rows: list[dict[str, Any]]
    best_epoch: int
    seconds: float

    @property
    def best_row(self) -> dict[str, Any]:
        """The log's row of the best epoch."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), {})


class NetworkRun:
    """One network, trained on ``fold.train`` and stopped by the loss on ``fold.stop``.

    ``number`` makes its chance another than that of other folds, and names its folder. Chance is
    drawn anew for every step from seed, fold, epoch and step: whoever takes the run up again draws
    the same. Several processes do some slides of each batch each; the loss is that of all.
    """

    counted = "slides"

    def __init__(
        self, cohort: Cohort, fold: Fold, settings: SlideSettings, run: Run, number: int
    ) -> None:
        self._cohort, self._fold, self._settings = cohort, fold, settings
        self._run, self._ranks, self._number = run, run.ranks, number
        self._device = run.ranks.fabric.device
        self.task = cohort.task.fitted(cohort.targets[list(fold.train)])
        torch.manual_seed(self._seed(0, 0))
        dim = cohort.cases[0].grid.features.shape[1]
        self.network = make_network(settings.model, dim, self.task.outputs, settings.shape)
        self.network.to(self._device)
        self._threads = self._reading_threads()
        groups = parameter_groups(self.network, settings.rate, settings.weight_decay)
        self.descent = Descent(
            self.network,
            torch.optim.AdamW(groups),
            run.ranks,
            settings,
            batches=-(-len(fold.train) // settings.slides_of_a_batch),
            precision=run.precision,
            wording=Wording("a lower --lr", fold.name, kept=False),
        )

    def train(self, last_epoch: int | None = None) -> Trained:
        """Train, or go on; ``last_epoch`` ends it earlier than the settings, at the same rates.

        Raises StoppedError with the state saved, and PatchknnError where the loss is no number.
        """
        run, settings, name = self._run, self._settings, self._fold.name
        seconds = _SECONDS_BETWEEN_SAVES
        events = settings.tensorboard
        epochs = Epochs(
            Keeping(run.folder / str(self._number), run.digest, seconds, seconds),
            run.ranks,
            BestEpoch("stop_loss", less_is_better=True),
            self._judged,
            run.report,
            named={"fold": name},
            tensorboard=None if events is None else events / name.replace(" ", "-"),
        )
        saved = epochs.saved()
        if saved is None:
            self._standardise()
        last = settings.last_epoch if last_epoch is None else last_epoch
        epochs.run(
            self,
            saved,
            last,
            settings.patience or None,
            lambda numbers: run.progress(numbers, total=len(numbers), label=name),
        )
        best = epochs.best
        assert best.epoch is not None
        return Trained(self.network.eval(), self.task, best.rows, best.epoch, epochs.seconds)

    def run_epoch(self, after_step: Callable[[], None]) -> dict[str, float]:
        """Do the rest of the epoch where the descent stands and return its means."""
        position = self.descent.position
        rng = np.random.default_rng([*self._key, position.epoch, 0])
        batches = np.array_split(rng.permutation(self._fold.train), self.descent.batches)
        first, threads = position.step, self._threads
        steps = [(number + 1, batches[number].tolist()) for number in range(first, len(batches))]
        read = made_ahead(partial(self._read, position.epoch), steps, threads, threads)

        def between() -> None:
            self._run.check()
            after_step()

        with closing(read):
            return self.descent.run_epoch(read, self._learn, between)

    def judging(self) -> AbstractContextManager[None]:
        """The network is judged as it is."""
        return nullcontext()

    def state(self) -> tuple[Groups, dict[str, Any]]:
        """Nothing: chance is drawn anew for every step."""
        return {}, {}

    def restore(self, groups: Groups, state: dict[str, Any]) -> None:
        """Nothing."""

    def _read(self, epoch: int, step: tuple[int, list[int]]) -> _Batch:
        """This process's part of a batch; in a thread, while earlier ones are learnt from."""
        number, slides = step
        rng = np.random.default_rng([*self._key, epoch, number])
        grids = [self._cohort.cases[slide].grid for slide in slides]
        window, turned = self._settings.window, self._settings.turn
        own = slice(*self._ranks.bounds(len(grids)))
        return slides, training_batch(grids, window, rng, turned=turned, part=own)

    def _learn(self, batch: _Batch) -> Learnt:
        slides, held = batch
        features, mask = (tensor.to(self._device, non_blocking=True) for tensor in held)
        position = self.descent.position
        torch.manual_seed(self._seed(position.epoch, position.step + 1))
        self.network.train()
        outputs = self._ranks.gather(self.descent.model(features.float(), mask))
        return Learnt(LossTerms(self.task.loss(outputs, self._targets(slides))), len(slides))

    def _judged(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with loss and figures of the slides that say when to stop."""
        numbers = list(self._fold.stop)
        if not numbers:
            return row
        grids = [self._cohort.cases[number].grid for number in numbers]
        outputs = shared_outputs(self.network, grids, self.task.outputs, self._ranks)
        given = torch.from_numpy(outputs).to(self._device, torch.float32)
        loss = float(self.task.loss(given, self._targets(numbers)))
        targets = self._cohort.targets[numbers]
        one_fold = np.zeros(len(numbers), np.int64)
        figures = self.task.figures(self.task.scores(outputs), targets, one_fold)
        known = {f"stop_{name}": value for name, value in figures.items() if value is not None}
        # Without one the loss says nothing either: of times without an event it is always 0.
        return {**row, "stop_loss": loss, **known} if known else row

    def _standardise(self) -> None:
        rng = np.random.default_rng([*self._key, 1])
        grids = [self._cohort.cases[number].grid for number in self._fold.train]
        parts = [sample_vectors(grid, _FIT_VECTORS, rng) for grid in grids]
        part: Any = self.network.input
        part.fit(np.concatenate(parts))

    def _targets(self, numbers: Sequence[int]) -> Tensor:
        targets = torch.from_numpy(self._cohort.targets[list(numbers)])
        return targets.to(self._device, torch.float32)

    def _reading_threads(self) -> int:
        """As many as help, and as memory is for: so many batches are ahead."""
        settings = self._settings
        shapes = [self._cohort.cases[number].grid.mask.shape for number in self._fold.train]
        slides = self._ranks.largest_share(settings.slides_of_a_batch)
        places = most_places(shapes, settings.window, turned=settings.turn)
        size = 2 * slides * self._cohort.cases[0].grid.features.shape[1] * places
        return max(1, min(available_cpus(), _MOST_THREADS, int(_READ_AHEAD_BYTES // size)))

    @property
    def _key(self) -> tuple[int, int]:
        return self._settings.seed, self._number

    def _seed(self, epoch: int, step: int) -> int:
        # Processes drop out different units of theirs, and begin with the same weights.
        own = [self._ranks.rank] if step and self._ranks.rank else []
        key = [*self._key, epoch, step, *own]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
