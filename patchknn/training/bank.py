"""The features of the whole training set, among which deep kNN may look for neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from patchknn.losses.bank import FeatureBank
from patchknn.training.context import Context
from patchknn.training.extraction import extract_features


class BankKeeper:
    """Keeps the bank, and makes it anew in the first step after ``bank`` batches (paper B, 2.2)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.bank: FeatureBank | None = None
        self.kept: dict[str, Tensor] | None = None
        self.made_at = 0

    def refresh(self, done: int) -> None:
        """Make the bank where there is none or it is too old, after ``done`` batches of the run.

        It leaves the network in evaluation mode.
        """
        every = self._context.settings.bank or 1
        if self.bank is not None and done - self.made_at < every:
            return
        context = self._context
        features, numbers = extract_features(context, context.train_numbers, "bank")
        kept = {"features": torch.from_numpy(features), "numbers": torch.from_numpy(numbers)}
        self.keep(kept, done)

    def keep(self, kept: dict[str, Tensor], made_at: int) -> None:
        """Take ``features`` (N, D) of the inputs of ``numbers`` (N,) as the bank."""
        device = self._context.device
        rows, numbers = kept["features"].to(device), kept["numbers"].to(device)
        labels = torch.from_numpy(self._context.labels).to(device)
        self.kept, self.made_at = kept, made_at
        self.bank = FeatureBank(rows, labels[numbers], numbers)
