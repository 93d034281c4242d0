"""The two phases of a run, epoch by epoch: checkpoints, the log, and the best epoch so far."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchknn.errors import StoppedError
from patchknn.training.checkpoint import (
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from patchknn.training.context import Context
from patchknn.training.heads import train_heads
from patchknn.training.judging import Judge
from patchknn.training.log import LOG_FILE, epoch_line, write_log
from patchknn.training.loop import FineTuning, Position

Saved = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]


class Phases:
    """A run's progress: what is trained, what the log says, which epoch was best.

    ``folder`` keeps the state; ``digest`` tells whose state it is.
    """

    def __init__(self, context: Context, judge: Judge, folder: Path, digest: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self.best_epoch: int | None = None
        self.seconds = 0.0
        self._context, self._judge = context, judge
        self._folder, self._digest = folder, digest
        self._best: dict[str, Tensor] = {}
        self._warned = False

    @property
    def best_row(self) -> dict[str, Any]:
        """The log's row of the best epoch, empty before the first."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), {})

    def run(self) -> None:
        """Train, or go on training, and leave the best epoch in the network."""
        saved = self._saved()
        if saved is None:
            self._first_phase()
        tuning = FineTuning(self._context)
        if saved is not None:
            self._restore(tuning, *saved)
        try:
            while tuning.position.epoch <= self._context.settings.epochs:
                self._epoch(tuning)
                self._save(tuning)
        except StoppedError:
            self._save(tuning)
            raise
        if self._best:
            self._context.network.load_state_dict(self._best)

    def _epoch(self, tuning: FineTuning) -> None:
        started, before = time.monotonic(), tuning.position.images
        means = tuning.run_epoch()
        seconds = time.monotonic() - started
        images = tuning.position.images - before  # of an epoch taken up again, those since
        row: dict[str, Any] = {"epoch": tuning.position.epoch, **means}
        row |= {"train_seconds": round(seconds, 2), "images_per_second": images / seconds}
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
        figures, warning = self._judge.epoch(self._context)
        row = row | figures
        self.rows.append(row)
        self._context.report(epoch_line(row, self._context.settings.epochs))
        if warning is not None and not self._warned:
            self._context.report(f"warning: {warning}")
        self._warned = warning is not None  # said once, and again only after it was better
        score, best = row.get("p_at_10"), self.best_row.get("p_at_10")
        if score is None or best is None or score > best:
            self.best_epoch = int(row["epoch"])
            self._best = {
                name: value.detach().cpu().clone()
                for name, value in self._context.network.state_dict().items()
            }

    def _saved(self) -> Saved | None:
        saved = read_checkpoint(self._folder)
        if saved is not None and saved[1].get("digest") != self._digest:
            self._context.report(
                f"{self._folder} holds a run with other settings or images: starting afresh."
            )
            return None
        return saved

    def _save(self, tuning: FineTuning) -> None:
        position = tuning.position
        groups = {
            "network": self._context.network.state_dict(),
            "best": self._best,
            "optimizer": optimizer_tensors(tuning.optimizer),
            "sums": position.sums,
            "random": _random_states(self._context.device),
        }
        state = {
            "digest": self._digest,
            "epoch": position.epoch,
            "step": position.step,
            "images": position.images,
            "rows": self.rows,
            "best_epoch": self.best_epoch,
            "scaler": tuning.scaler_state,
            "seconds": self.seconds,
        }
        write_checkpoint(self._folder, groups, state)
        if self.rows:
            write_log(self._folder / LOG_FILE, self.rows)

    def _restore(
        self, tuning: FineTuning, groups: dict[str, dict[str, Tensor]], state: dict[str, Any]
    ) -> None:
        device = self._context.device
        self._context.network.load_state_dict(groups["network"])
        restore_optimizer(tuning.optimizer, groups.get("optimizer", {}))
        self._best = groups.get("best", {})
        self.rows = list(state["rows"])
        self.best_epoch = state["best_epoch"]
        self.seconds = float(state["seconds"])
        sums = {name: value.to(device) for name, value in groups.get("sums", {}).items()}
        tuning.position = Position(state["epoch"], state["step"], sums, state["images"])
        tuning.restore_scaler(state["scaler"])
        _restore_random(device, groups["random"])
        self._context.report(
            f"going on from {self._folder}: epoch {state['epoch']}, {state['step']} of "
            f"{tuning.steps} steps done"
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
