"""The training of one network on some slides of a cohort, resumable after any step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchknn.errors import PatchknnError, StoppedError
from patchknn.training.best import BestEpoch
from patchknn.training.checkpoint import (
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from patchknn.training.inputs import Progress
from patchknn.training.log import LOG_FILE, write_log
from patchknn.training.schedule import parameter_groups, rate_factor, set_rates
from patchknn.wholeslide.grids.preview import sample_vectors
from patchknn.wholeslide.learning.batches import training_batch
from patchknn.wholeslide.learning.cases import Cohort
from patchknn.wholeslide.learning.folds import Fold
from patchknn.wholeslide.learning.scoring import outputs_of
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.models.making import make_network
from patchknn.wholeslide.tasks.task import Task

_CHECKPOINT_SECONDS = 60.0
# Vectors of each training slide by which features are standardised.
_FIT_VECTORS = 256


@dataclass(frozen=True)
class Hooks:
    """Whom to tell, and who may end a run: ``check`` raises StoppedError between two steps."""

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

    @property
    def best_row(self) -> dict[str, Any]:
        """The log's row of the best epoch."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), {})


class NetworkRun:
    """One network, trained on ``fold.train`` and stopped by the loss on ``fold.stop``.

    ``number`` makes its chance another than that of other folds; ``folder`` keeps its state, that
    of the run ``digest``. ``last_epoch`` ends it earlier than the settings, at the same rates.
    Chance is drawn anew for every step from seed, fold, epoch and step: whoever takes the run up
    again draws the same.
    """

    def __init__(
        self,
        cohort: Cohort,
        fold: Fold,
        settings: SlideSettings,
        device: torch.device,
        hooks: Hooks,
        *,
        number: int,
        folder: Path,
        digest: str,
        last_epoch: int | None = None,
    ) -> None:
        self._cohort, self._fold, self._settings = cohort, fold, settings
        self._device, self._hooks, self._number = device, hooks, number
        self._folder, self._digest = folder, digest
        self._epochs, self._batch_size = settings.run_shape
        self._last_epoch = self._epochs if last_epoch is None else last_epoch
        self.task = cohort.task.fitted(cohort.targets[list(fold.train)])
        torch.manual_seed(self._seed(0, 0))
        dim = cohort.cases[0].grid.features.shape[1]
        self._network = make_network(settings.model, dim, self.task.outputs, settings.shape)
        self._network.to(device)
        groups = parameter_groups(self._network, settings.rate, settings.weight_decay)
        self._optimizer = torch.optim.AdamW(groups)
        self._best = BestEpoch("stop_loss", less_is_better=True)
        self._epoch, self._step, self._sum = 1, 0, 0.0
        self._saved_at = time.monotonic()

    def run(self) -> Trained:
        """Train, or go on; raises StoppedError with the state saved, PatchknnError on a NaN."""
        done = self._restore()
        if not done:
            self._standardise()
            try:
                self._run_epochs()
            except StoppedError:
                self._save(done=False)
                raise
            self._save(done=True)
        self._best.load_into(self._network)
        assert self._best.epoch is not None
        return Trained(self._network.eval(), self.task, self._best.rows, self._best.epoch)

    def _run_epochs(self) -> None:
        epochs = list(range(self._epoch, self._last_epoch + 1))
        label = self._fold.name
        for _ in self._hooks.progress(epochs, total=len(epochs), label=label):
            self._run_epoch()
            if self._settings.patience and self._best.waited >= self._settings.patience:
                break

    def _run_epoch(self) -> None:
        order = np.random.default_rng([*self._key, self._epoch, 0]).permutation(self._fold.train)
        batches = np.array_split(order, -(-len(order) // self._batch_size))
        for numbers in batches[self._step :]:
            self._hooks.check()
            self._descend(numbers.tolist(), len(batches))
            if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
                self._save(done=False)
        row = {"fold": self._fold.name, "epoch": self._epoch, "loss": self._sum / len(batches)}
        self._best.note(row | self._judged(), self._network)
        self._epoch, self._step, self._sum = self._epoch + 1, 0, 0.0

    def _descend(self, numbers: list[int], per_epoch: int) -> None:
        settings = self._settings
        rng = np.random.default_rng([*self._key, self._epoch, self._step + 1])
        torch.manual_seed(self._seed(self._epoch, self._step + 1))
        grids = [self._cohort.cases[number].grid for number in numbers]
        batch = training_batch(grids, settings.window, rng, turned=settings.turn)
        features, mask = (part.to(self._device) for part in batch)
        targets = self._targets(numbers)
        done = (self._epoch - 1) * per_epoch + self._step
        steps = self._epochs * per_epoch
        set_rates(self._optimizer, rate_factor(settings, done, steps, per_epoch))
        loss = self.task.loss(self._network.train()(features, mask), targets)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), settings.clip_norm or float("inf"))
        value = loss.item()
        if not np.isfinite(value):
            message = (
                f"The loss is no longer a number in epoch {self._epoch} of {self._fold.name}: "
                "train again with a lower --lr."
            )
            raise PatchknnError(message)
        self._optimizer.step()
        self._step, self._sum = self._step + 1, self._sum + value

    def _judged(self) -> dict[str, float]:
        """The loss and the figures of the slides that say when to stop."""
        numbers = list(self._fold.stop)
        if not numbers:
            return {}
        grids = [self._cohort.cases[number].grid for number in numbers]
        outputs = outputs_of(self._network, grids, self.task.outputs)
        given = torch.from_numpy(outputs).to(self._device, torch.float32)
        loss = float(self.task.loss(given, self._targets(numbers)))
        targets = self._cohort.targets[numbers]
        one_fold = np.zeros(len(numbers), np.int64)
        figures = self.task.figures(self.task.scores(outputs), targets, one_fold)
        known = {f"stop_{name}": value for name, value in figures.items() if value is not None}
        # Without one the loss says nothing either: of times without an event it is always 0.
        return {"stop_loss": loss, **known} if known else {}

    def _standardise(self) -> None:
        rng = np.random.default_rng([*self._key, 1])
        grids = [self._cohort.cases[number].grid for number in self._fold.train]
        parts = [sample_vectors(grid, _FIT_VECTORS, rng) for grid in grids]
        part: Any = self._network.input
        part.fit(np.concatenate(parts))

    def _targets(self, numbers: list[int]) -> Tensor:
        targets = torch.from_numpy(self._cohort.targets[numbers])
        return targets.to(self._device, torch.float32)

    @property
    def _key(self) -> tuple[int, int]:
        return self._settings.seed, self._number

    def _seed(self, epoch: int, step: int) -> int:
        key = [*self._key, epoch, step]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

    def _save(self, *, done: bool) -> None:
        self._saved_at = time.monotonic()
        groups = {
            "network": self._network.state_dict(),
            "best": self._best.weights,
            "optimizer": optimizer_tensors(self._optimizer),
        }
        state = {
            "digest": self._digest,
            "done": done,
            "epoch": self._epoch,
            "step": self._step,
            "sum": self._sum,
            "rows": self._best.rows,
            "best_epoch": self._best.epoch,
        }
        write_checkpoint(self._folder, groups, state)
        if self._best.rows:  # to be looked at while it goes on
            write_log(self._folder / LOG_FILE, self._best.rows)

    def _restore(self) -> bool:
        """Take up what was saved of this very run; whether it was done."""
        saved = read_checkpoint(self._folder)
        if saved is None or saved[1].get("digest") != self._digest:
            return False
        groups, state = saved
        self._network.load_state_dict(groups["network"])
        restore_optimizer(self._optimizer, groups.get("optimizer", {}))
        self._best.restore(groups.get("best", {}), state["rows"], state["best_epoch"])
        self._epoch, self._step, self._sum = state["epoch"], state["step"], state["sum"]
        return bool(state["done"])
