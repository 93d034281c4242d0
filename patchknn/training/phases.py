"""The two phases of a run, epoch by epoch: checkpoints, the log, and the best epoch so far."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchknn.errors import InputError, StoppedError
from patchknn.training.best import BestEpoch
from patchknn.training.checkpoint import (
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from patchknn.training.context import Context
from patchknn.training.heads import train_heads
from patchknn.training.judging import Judge
from patchknn.training.log import LOG_FILE, EventLog, epoch_line, write_log
from patchknn.training.loop import FineTuning, Position

Saved = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]
# A job that is killed without a word loses no more than this.
_CHECKPOINT_SECONDS = 600.0


class Phases:
    """A run's progress: what is trained, what the log says, which epoch was best.

    ``folder`` keeps the state; ``digest`` tells whose state it is. Of several processes the first
    one writes; all read.
    """

    def __init__(self, context: Context, judge: Judge, folder: Path, digest: str) -> None:
        self.best = BestEpoch("p_at_10")
        self.seconds = 0.0
        self._context, self._judge = context, judge
        self._folder, self._digest = folder, digest
        self._warned = False
        self._saved_at = time.monotonic()
        self._events = EventLog(context.settings.tensorboard if context.ranks.first else None)

    def run(self) -> None:
        """Train, or go on training, and leave the best epoch in the network."""
        saved = self._saved()
        if saved is None:
            self._first_phase()
        tuning = FineTuning(self._context, None if saved is None else saved[1]["left_out"])
        if saved is not None:
            self._restore(tuning, *saved)
        try:
            while (
                tuning.position.epoch <= self._context.settings.last_epoch and not self._settled()
            ):
                self._epoch(tuning)
                self._save(tuning)
        except StoppedError:
            tuning.check_finite()  # on a GPU a loss that is no number may not have been seen yet
            self._save(tuning)
            # Whoever ends first makes the launcher kill the others, the one that writes among them.
            self._context.ranks.wait()
            raise
        finally:
            self._events.close()
        self.best.load_into(self._context.network)

    def _epoch(self, tuning: FineTuning) -> None:
        started, before = time.monotonic(), tuning.position.images
        means = tuning.run_epoch(lambda: self._save_now_and_then(tuning))
        seconds = time.monotonic() - started
        images = tuning.position.images - before  # of an epoch taken up again, those since
        row: dict[str, Any] = {"epoch": tuning.position.epoch, **means}
        row["train_seconds"] = round(seconds, 2)
        if images:
            row["images_per_second"] = images / seconds
        with nullcontext() if tuning.average is None else tuning.average.in_place():
            self._judged(row)
        self.seconds += time.monotonic() - started
        tuning.position = Position(epoch=tuning.position.epoch + 1)

    def _first_phase(self) -> None:
        started = time.monotonic()
        row: dict[str, Any] = {"epoch": 0}
        if self._context.settings.head_epochs:
            row["loss"] = train_heads(self._context)
        if self._context.settings.starts_from_weights:
            self._judged(row)  # how good it is before the backbone is touched
        self.seconds += time.monotonic() - started

    def _judged(self, row: dict[str, Any]) -> None:
        figures, warning = self._judge.epoch(self._context, row)
        row = row | figures
        self._events.write(row)
        self._context.report(epoch_line(row, self._context.settings.last_epoch))
        if warning is not None and not self._warned:
            self._context.report(f"warning: {warning}")
        self._warned = warning is not None  # said once, and again only after it was better
        score = row.get("p_at_10")
        if score is not None:  # rounding may differ between nodes; all must agree
            row["p_at_10"] = self._context.ranks.as_first(score)
        self.best.note(row, self._context.network)

    def _settled(self) -> bool:
        """Whether ``patience`` epochs have gone by without a better one; the first process says."""
        patience, reached = self._context.settings.patience, self.best.reached
        if patience is None or reached is None:
            return False
        waited = int(self._context.ranks.as_first(self.best.waited))
        if waited >= patience:
            self._context.report(
                f"no better P@10 since epoch {reached}: ending after {patience} epochs of patience."
            )
        return waited >= patience

    def _saved(self) -> Saved | None:
        saved = read_checkpoint(self._folder)
        if saved is not None and saved[1].get("digest") != self._digest:
            self._context.report(
                f"{self._folder} holds a run with other settings or images: starting afresh."
            )
            saved = None
        # Of the state that each has read, 0 for none.
        place = 0.0 if saved is None else 1e9 * saved[1]["epoch"] + saved[1]["step"]
        if self._context.ranks.any(place != self._context.ranks.as_first(place)):
            message = (
                f"The processes do not see the same {self._folder}: give an -o on a file system "
                "that all nodes share, or wait until what one node wrote is seen by the others."
            )
            raise InputError(message)
        return saved

    def _save_now_and_then(self, tuning: FineTuning) -> None:
        # Only the first one writes, so its clock alone counts.
        if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
            tuning.check_finite()
            self._save(tuning)

    def _save(self, tuning: FineTuning) -> None:
        self._saved_at = time.monotonic()
        if not self._context.ranks.first:
            return
        position = tuning.position
        groups = {
            "network": self._context.network.state_dict(),
            "best": self.best.weights,
            "optimizer": optimizer_tensors(tuning.optimizer),
            "sums": position.sums,
            "random": _random_states(self._context.device),
        }
        state = {
            "digest": self._digest,
            "epoch": position.epoch,
            "step": position.step,
            "images": position.images,
            "rows": self.best.rows,
            "best_epoch": self.best.epoch,
            "left_out": tuning.left_out,
            "unreadable": list(self._context.inputs.unreadable.items()),
            "scaler": tuning.scaler_state,
            "seconds": self.seconds,
        }
        if tuning.average is not None:
            groups["average"] = tuning.average.state
            state["averaged"] = tuning.average.steps
        if tuning.bank is not None and tuning.bank.kept is not None:
            groups["bank"] = tuning.bank.kept
            state["bank_made_at"] = tuning.bank.made_at
        write_checkpoint(self._folder, groups, state)
        if self.best.rows:
            write_log(self._folder / LOG_FILE, self.best.rows)

    def _restore(
        self, tuning: FineTuning, groups: dict[str, dict[str, Tensor]], state: dict[str, Any]
    ) -> None:
        device = self._context.device
        self._context.network.load_state_dict(groups["network"])
        restore_optimizer(tuning.optimizer, groups.get("optimizer", {}))
        self.best.restore(groups.get("best", {}), state["rows"], state["best_epoch"])
        self.seconds = float(state["seconds"])
        sums = {name: value.to(device) for name, value in groups.get("sums", {}).items()}
        tuning.position = Position(state["epoch"], state["step"], sums, state["images"])
        tuning.restore_scaler(state["scaler"])
        if tuning.average is not None:
            tuning.average.restore(groups["average"], state["averaged"])
        if tuning.bank is not None and "bank" in groups:
            tuning.bank.keep(groups["bank"], state["bank_made_at"])
        self._context.inputs.leave_out(dict(state["unreadable"]))
        _restore_random(device, groups["random"])
        self._context.report(
            f"going on from {self._folder}: epoch {state['epoch']}, {state['step']} of "
            f"{tuning.steps} batches done"
        )


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
