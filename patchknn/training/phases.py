"""The two phases of a run: the new layers alone, then the whole network, and what is said of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from patchknn.training.best import BestEpoch
from patchknn.training.context import Context
from patchknn.training.epochs import Epochs, Keeping
from patchknn.training.fine_tuning import FineTuning
from patchknn.training.heads import train_heads
from patchknn.training.judging import Judge
from patchknn.training.log import epoch_line

# Of a large backbone a state is some gigabytes.
_SECONDS_WITHIN_EPOCHS = 600.0


class Phases:
    """A run's progress: what is trained, what the log says, which epoch was best.

    ``folder`` keeps the state; ``digest`` tells whose state it is.
    """

    def __init__(self, context: Context, judge: Judge, folder: Path, digest: str) -> None:
        self.best = BestEpoch("p_at_10")
        self._context, self._judge = context, judge
        self.seconds = 0.0  # of work, over all starts of the run
        self._warned = False
        self._keeping = Keeping(folder, digest, _SECONDS_WITHIN_EPOCHS)

    def run(self) -> None:
        """Train, or go on training, and leave the best epoch in the network."""
        context, patience = self._context, self._context.settings.patience
        epochs = Epochs(
            self._keeping,
            context.ranks,
            self.best,
            self._judged,
            context.report,
            tensorboard=context.settings.tensorboard,
        )
        saved = epochs.saved()
        if saved is None:
            self._first_phase(epochs)
        tuning = FineTuning(context, None if saved is None else saved[1]["left_out"])
        settled = epochs.run(tuning, saved, context.settings.last_epoch, patience)
        self.seconds = epochs.seconds
        if settled:
            context.report(
                f"no better P@10 since epoch {self.best.reached}: ending after {patience} epochs "
                "of patience."
            )

    def _first_phase(self, epochs: Epochs) -> None:
        started = time.monotonic()
        row: dict[str, Any] = {"epoch": 0}
        if self._context.settings.head_epochs:
            row["loss"] = train_heads(self._context)
        if self._context.settings.starts_from_weights:
            # How good it is before the backbone is touched.
            epochs.judged(row, self._context.network)
        epochs.seconds += time.monotonic() - started

    def _judged(self, row: dict[str, Any]) -> dict[str, Any]:
        figures, warning = self._judge.epoch(self._context, row)
        row = row | figures
        self._context.report(epoch_line(row, self._context.settings.last_epoch))
        if warning is not None and not self._warned:
            self._context.report(f"warning: {warning}")
        self._warned = warning is not None  # said once, and again only after it was better
        return row
