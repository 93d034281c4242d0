"""The epochs of a run: their rows in the log, which of them was best, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class BestEpoch:
    """Keeps the best epoch by a column of the log, of which more is better, or less.

    ``rows`` are those of the log, each with its ``epoch``; without that column the last one is
    kept. ``score`` names the column. ``weights`` are on the CPU.
    """

    def __init__(self, score: str, *, less_is_better: bool = False) -> None:
        self.rows: list[dict[str, Any]] = []
        self.epoch: int | None = None
        self.weights: dict[str, Tensor] = {}
        self.score = score
        self._sign = -1 if less_is_better else 1

    @property
    def row(self) -> dict[str, Any]:
        """The log's row of the best epoch, empty before the first."""
        return next((row for row in self.rows if row["epoch"] == self.epoch), {})

    def note(self, row: dict[str, Any], network: nn.Module) -> None:
        """Take in an epoch, and the network's weights where it is the best so far."""
        score, best = row.get(self.score), self.row.get(self.score)
        self.rows.append(row)
        # Of equals the later one: where validation is easy, the first is perfect before codes are.
        if score is None or best is None or self._sign * (score - best) >= 0:
            self.epoch = int(row["epoch"])
            state = network.state_dict().items()
            self.weights = {name: value.detach().cpu().clone() for name, value in state}

    @property
    def reached(self) -> int | None:
        """The epoch in which the best score first came, None without a score."""
        best = self.row.get(self.score)
        if best is None:
            return None
        return int(next(row["epoch"] for row in self.rows if row.get(self.score) == best))

    @property
    def waited(self) -> int:
        """How many epochs have gone by since then; 0 without a score."""
        return 0 if self.reached is None else int(self.rows[-1]["epoch"]) - self.reached

    def load_into(self, network: nn.Module) -> None:
        """Give the network the best epoch's weights, if there is one."""
        if self.weights:
            network.load_state_dict(self.weights)

    def restore(
        self, weights: Mapping[str, Tensor], rows: list[dict[str, Any]], epoch: int | None
    ) -> None:
        """Give back what a checkpoint kept."""
        self.weights, self.rows, self.epoch = dict(weights), list(rows), epoch
