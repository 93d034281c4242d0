"""A training, epoch by epoch: its checkpoints, its log, and the best epoch so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from patchknn.errors import InputError, StoppedError
from patchknn.training.best import BestEpoch
from patchknn.training.checkpoint import (
    Groups,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from patchknn.training.descent import Descent, Position
from patchknn.training.log import LOG_FILE, EventLog, write_log
from patchknn.training.ranks import Ranks

Saved = tuple[Groups, dict[str, Any]]


class Learner(Protocol):
    """What is trained. ``network`` has the weights, ``counted`` names what its batches hold."""

    @property
    def network(self) -> nn.Module:
        """As it is judged and saved."""
        ...

    @property
    def descent(self) -> Descent:
        """The optimiser's steps over it, and where they stand."""
        ...

    @property
    def counted(self) -> str:
        """``images`` or ``slides``."""
        ...

    def run_epoch(self, after_step: Callable[[], None]) -> dict[str, float]:
        """Do the rest of the epoch at the descent's position; its means."""
        ...

    def judging(self) -> AbstractContextManager[None]:
        """Within it the network is as it is judged and kept."""
        ...

    def state(self) -> Saved:
        """What a checkpoint must hold beside network, optimiser and position."""
        ...

    def restore(self, groups: Groups, state: dict[str, Any]) -> None:
        """Give back what ``state`` gave."""
        ...


@dataclass(frozen=True)
class Keeping:
    """Where the state of a run lies, whose it is, and the seconds after which it is saved.

    ``within`` an epoch a state is saved after so many, so that a job that is killed without a word
    loses no more; ``between`` two epochs after so many, which may be fewer.
    """

    folder: Path
    digest: str
    within: float
    between: float = 0.0


class Epochs:
    """The epochs of one training and what is kept of them.

    ``judge`` takes the row of an epoch and returns it with its figures. ``named`` are columns that
    every row has. Of several processes the first one writes; all read.
    """

    def __init__(
        self,
        keeping: Keeping,
        ranks: Ranks,
        best: BestEpoch,
        judge: Callable[[dict[str, Any]], dict[str, Any]],
        report: Callable[[str], None],
        *,
        named: Mapping[str, Any] | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        self.best = best
        self.seconds = 0.0
        self._keeping, self._ranks, self._judge, self._report = keeping, ranks, judge, report
        self._named = dict(named or {})
        self._events = EventLog(tensorboard if ranks.first else None)
        self._saved_at = time.monotonic()
        self._unsaved = False

    def saved(self) -> Saved | None:
        """The state that this run left, if any; raises InputError where not all see the same."""
        folder = self._keeping.folder
        saved = read_checkpoint(folder)
        if saved is not None and saved[1].get("digest") != self._keeping.digest:
            self._report(
                f"{folder} holds a run with other settings, data or precision: starting afresh."
            )
            saved = None
        # Of the state that each has read, 0 for none.
        place = 0.0 if saved is None else 1e9 * saved[1]["epoch"] + saved[1]["step"]
        if self._ranks.any(place != self._ranks.as_first(place)):
            message = (
                f"The processes do not see the same {folder}: give an -o on a file system "
                "that all nodes share, or wait until what one node wrote is seen by the others."
            )
            raise InputError(message)
        return saved

    def run(
        self,
        learner: Learner,
        saved: Saved | None,
        last_epoch: int,
        patience: int | None,
        shown: Callable[[range], Iterable[int]] = iter,
    ) -> bool:
        """Train up to ``last_epoch``, or go on, and leave the best epoch in the network.

        With ``patience`` it ends after so many epochs without a better one: whether it did.
        ``shown`` wraps the epochs to come. Raises StoppedError with the state saved.
        """
        descent, settled = learner.descent, False
        if saved is not None:
            self._restore(learner, *saved)
        taken_up = saved is not None
        try:
            for _ in shown(range(descent.position.epoch, last_epoch + 1)):
                settled = self._settled(patience)
                if settled:
                    break
                if taken_up:
                    self._say_where(descent)
                    taken_up = False
                self._epoch(learner)
                self._save(learner, self._keeping.between)
            self._save(learner)
        except StoppedError:
            descent.check_finite()  # on a GPU a loss that is no number may not have been seen yet
            self._unsaved = True
            self._save(learner)
            # Whoever ends first makes the launcher kill the others, the one that writes among them.
            self._ranks.wait()
            raise
        finally:
            self._events.close()
        self.best.load_into(learner.network)
        return settled

    def judged(self, row: dict[str, Any], network: nn.Module) -> None:
        """Take in an epoch: judge it, log it, and keep its weights where it is the best so far."""
        row = self._judge({**self._named, **row})
        self._events.write(row)
        score = row.get(self.best.score)
        if score is not None:  # rounding may differ between nodes; all must agree
            row[self.best.score] = self._ranks.as_first(score)
        self.best.note(row, network)

    def _epoch(self, learner: Learner) -> None:
        started, before = time.monotonic(), learner.descent.position.seen
        means = learner.run_epoch(lambda: self._save_now_and_then(learner))
        position = learner.descent.position
        seconds = time.monotonic() - started
        seen = position.seen - before  # of an epoch taken up again, those since
        row: dict[str, Any] = {"epoch": position.epoch, **means}
        row["train_seconds"] = round(seconds, 2)
        if seen:
            row[f"{learner.counted}_per_second"] = seen / seconds
        with learner.judging():
            self.judged(row, learner.network)
        self.seconds += time.monotonic() - started
        learner.descent.position = Position(epoch=position.epoch + 1)
        self._unsaved = True

    def _settled(self, patience: int | None) -> bool:
        """Whether ``patience`` epochs have gone by without a better one; the first process says."""
        if patience is None or self.best.reached is None:
            return False
        return int(self._ranks.as_first(self.best.waited)) >= patience

    def _save_now_and_then(self, learner: Learner) -> None:
        # Only the first one writes, so its clock alone counts.
        if time.monotonic() - self._saved_at > self._keeping.within:
            learner.descent.check_finite()
            self._unsaved = True
            self._save(learner)

    def _save(self, learner: Learner, after: float = 0.0) -> None:
        """Write what is not yet written, where ``after`` seconds have gone by since the last."""
        if not self._unsaved or time.monotonic() - self._saved_at < after:
            return
        self._saved_at, self._unsaved = time.monotonic(), False
        if not self._ranks.first:
            return
        descent, position = learner.descent, learner.descent.position
        groups, state = learner.state()
        groups |= {
            "network": learner.network.state_dict(),
            "best": self.best.weights,
            "optimizer": optimizer_tensors(descent.optimizer),
            "sums": position.sums,
        }
        state |= {
            "digest": self._keeping.digest,
            "epoch": position.epoch,
            "step": position.step,
            "images": position.seen,
            "rows": self.best.rows,
            "best_epoch": self.best.epoch,
            "scaler": descent.scaler_state,
            "seconds": self.seconds,
        }
        write_checkpoint(self._keeping.folder, groups, state)
        if self.best.rows:
            write_log(self._keeping.folder / LOG_FILE, self.best.rows)

    def _restore(self, learner: Learner, groups: Groups, state: dict[str, Any]) -> None:
        descent, device = learner.descent, self._ranks.fabric.device
        learner.network.load_state_dict(groups["network"])
        restore_optimizer(descent.optimizer, groups.get("optimizer", {}))
        self.best.restore(groups.get("best", {}), state["rows"], state["best_epoch"])
        self.seconds = float(state["seconds"])
        sums = {name: value.to(device) for name, value in groups.get("sums", {}).items()}
        descent.position = Position(state["epoch"], state["step"], sums, state["images"])
        descent.restore_scaler(state["scaler"])
        learner.restore(groups, state)

    def _say_where(self, descent: Descent) -> None:
        position = descent.position
        self._report(
            f"going on from {self._keeping.folder}: epoch {position.epoch}, {position.step} of "
            f"{descent.batches} batches done"
        )
