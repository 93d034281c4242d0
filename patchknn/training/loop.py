"""The steps of fine-tuning: one epoch over the whole network, resumable after any step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchknn.encoder.network import EncoderOutput
from patchknn.errors import PatchknnError
from patchknn.losses.terms import LossTerms
from patchknn.training.averaging import AveragedWeights
from patchknn.training.bank import BankKeeper
from patchknn.training.batches import TaskBatches
from patchknn.training.context import Context
from patchknn.training.objectives import InBank, make_objective
from patchknn.training.schedule import make_optimizer, rate_factor, set_rates

# Asking a GPU for a number makes it wait; on a CPU it costs nothing.
_GPU_CHECK_INTERVAL = 16
_SEEN_AT_ONCE = ("cpu",)
_NOT_SUMMED = ("loss", "broken")
# Each overflow halves the scale, from 65536: below this, sixteen followed each other.
_LEAST_SCALE = 1.0


@dataclass
class Position:
    """Where a run stands: ``step`` batches of ``epoch`` (from 1) are done; what they summed to."""

    epoch: int = 1
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0


class FineTuning:
    """Network, optimiser and precision of the second phase, stepping through balanced batches.

    Several processes do one slice of each batch each; the loss is that of the whole batch.
    ``left_out`` are the unreadable inputs that no batch names: those known now, or, where a run is
    taken up again, those known when it began.
    """

    def __init__(self, context: Context, left_out: Sequence[int] | None = None) -> None:
        settings, network = context.settings, context.network
        self.position = Position()
        self._context, self._settings, self._ranks = context, settings, context.ranks
        self._objective = make_objective(context)
        self._labels = torch.from_numpy(context.labels[: context.n_train])
        # What turns out unreadable later is passed over where it comes: batches stay as they are.
        self.left_out = sorted(context.inputs.unreadable if left_out is None else left_out)
        self._batches = TaskBatches(context, set(self.left_out))
        self.optimizer = make_optimizer(network, settings)
        network.backbone.to(memory_format=torch.channels_last)
        fabric = context.ranks.fabric
        model: Any = torch.compile(network) if settings.compile else network
        # What a loss does not train takes no part: averaging would wait for its gradients.
        for head in () if settings.learns_hash else (network.hash_layer, *network.classifiers):
            head.requires_grad_(requires_grad=False)
        self._model, self._stepper = fabric.setup(model, self.optimizer)
        self._fabric = fabric
        self._scaled = context.precision == "float16"
        self.average = AveragedWeights(network, settings.ema) if settings.ema else None
        self.bank = BankKeeper(context) if settings.bank else None

    @property
    def steps(self) -> int:
        """Batches of one epoch."""
        return len(self._batches)

    @property
    def scaler_state(self) -> dict[str, Any]:
        """The loss scale of float16, empty otherwise."""
        return dict(self._fabric.strategy.precision.state_dict())

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """Give the loss scale back."""
        if state:
            self._fabric.strategy.precision.load_state_dict(state)

    def run_epoch(self, after_step: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Do the rest of the epoch at ``position`` and return its means.

        ``after_step`` is called between two steps of the optimiser, where position and state are
        whole. Raises StoppedError only there, and PatchknnError where the loss is no longer a
        number.
        """
        position, ranks = self.position, self._ranks
        if position.step == 0:
            # Each epoch has its own stream of chance, so that a resumed run draws the same.
            # Processes drop out different units of theirs.
            seed = self._settings.seed * 1_000_003 + position.epoch + self._ranks.rank * 7_919_003
            torch.manual_seed(seed % 2**63)
            position.sums, position.images = {}, 0
        lists = self._batches.of_epoch(position.epoch)[position.step :]
        label = f"epoch {position.epoch}/{self._settings.last_epoch}"
        held = self._context.inputs.batches([ranks.share(numbers) for numbers in lists])
        for batch, (rows, indices) in zip(
            lists, self._context.progress(held, total=len(lists), label=label), strict=True
        ):
            self._step(batch, rows, indices)
            position.step += 1
            if self._ends_a_step():
                self._context.check()
                after_step()
        self.check_finite()
        return self._means()

    def _step(self, batch: list[int], rows: Tensor, indices: Tensor) -> None:
        # Between two steps of the optimiser only: a stop during the refresh must lose no gradient.
        if self.bank is not None and self.position.step % self._settings.accumulate == 0:
            self.bank.refresh(self._done())
        self._train_mode(len(rows))
        place = {number: index for index, number in enumerate(batch)}
        places = [place[number] for number in indices.tolist()]
        generator = torch.Generator().manual_seed(self._chance())
        device = self._fabric.device
        with torch.no_grad():
            held = rows.to(device, non_blocking=True)
            inputs = self._context.inputs.varied(held, places, len(batch), generator)
        labels = self._ranks.gather(self._labels[indices].to(device, non_blocking=True))
        if len(labels) == 0:
            return
        last = self._ends_a_step(after=self.position.step + 1)
        alone = self._ranks.count == 1 or last
        with nullcontext() if alone else self._fabric.no_backward_sync(self._model):
            output = self._gathered(self._model(inputs))
            terms = self._objective(output, labels, self._in_bank(indices))
            self._fabric.backward(terms.total / self._in_step())
        self._note(terms)
        if last:
            self._descend()
        self.position.images += len(labels)

    def _descend(self) -> None:
        done, total = self._done(), self._settings.last_epoch * self.steps
        set_rates(self.optimizer, rate_factor(self._settings, done, total, self.steps))
        norm = self._fabric.clip_gradients(
            self._model,
            self._stepper,
            max_norm=self._settings.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        if not self._scaled:  # float16 overflows on purpose and steps back
            self._add({"broken": ~norm.isfinite()} if norm is not None else {})
        if (
            self._fabric.device.type in _SEEN_AT_ONCE
            or self.position.step % _GPU_CHECK_INTERVAL == 0
        ):
            self.check_finite()
        self._stepper.step()
        self._stepper.zero_grad()
        if self.average is not None:
            self.average.update()

    def _gathered(self, output: EncoderOutput) -> EncoderOutput:
        gather = self._ranks.gather
        return EncoderOutput(
            gather(output.features),
            gather(output.hash_vectors),
            tuple(gather(logits) for logits in output.logits),
        )

    def _in_bank(self, indices: Tensor) -> InBank | None:
        if self.bank is None or self.bank.bank is None:
            return None
        return InBank(self.bank.bank, self._ranks.gather(indices.to(self._fabric.device)))

    def _done(self) -> int:
        return (self.position.epoch - 1) * self.steps + self.position.step

    def _chance(self) -> int:
        # A seed of this batch alone: whoever takes the run up again draws the same.
        key = [self._settings.seed, self.position.epoch, self.position.step]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

    def _ends_a_step(self, after: int | None = None) -> bool:
        batches = self.position.step if after is None else after
        return batches % self._settings.accumulate == 0 or batches == self.steps

    def _in_step(self) -> int:
        """Batches in this step of the optimiser: the last one of an epoch may have fewer."""
        most = self._settings.accumulate
        first = self.position.step - self.position.step % most
        return min(most, self.steps - first)

    def _train_mode(self, rows: int) -> None:
        network = self._context.network
        network.train()
        # One image, as a process's slice of a small batch may be, has no statistics of its own.
        if self._settings.frozen_batch_norm or rows < 2:
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _note(self, terms: LossTerms) -> None:
        values = {"loss": terms.total.detach(), **terms.parts}
        counts = {"triplets": terms.triplets, "active": terms.active, "saturated": terms.saturated}
        values |= {name: value for name, value in counts.items() if value is not None}
        broken = ~terms.total.detach().isfinite()
        self._add({**values, "broken": broken, "steps": torch.ones(())})

    def _add(self, values: dict[str, Tensor]) -> None:
        sums = self.position.sums
        for name, value in values.items():
            sums[name] = sums[name] + value.double() if name in sums else value.double()

    def check_finite(self) -> None:
        """Raise PatchknnError where in this epoch a loss or its gradient was not a number."""
        sums = self.position.sums
        overflows = self._scaled and self.scaler_state.get("scale", 1.0) < _LEAST_SCALE
        if not overflows and ("broken" not in sums or sums["broken"].item() == 0):
            return
        step, epoch = self.position.step + 1, self.position.epoch
        where = f"epoch {epoch}, step {min(step, self.steps)} of {self.steps}"
        bad = [n for n, v in sums.items() if n not in _NOT_SUMMED and not v.isfinite()]
        part = f" ({', '.join(bad)})" if bad else ""
        message = (
            f"The loss is no longer a number in {where}{part}; the last good state is kept: "
            "train again with a lower --lr and --backbone-lr."
        )
        if overflows:
            message = (
                f"The gradients are beyond float16 at every scale in {where}; the last good state "
                "is kept: train again with --precision bfloat16 or float32."
            )
        raise PatchknnError(message)

    def _means(self) -> dict[str, float]:
        sums = {name: value.item() for name, value in self.position.sums.items()}
        steps = max(sums.pop("steps", 1.0), 1.0)
        sums.pop("broken", None)
        triplets = sums.pop("triplets", None)
        active, saturated = sums.pop("active", None), sums.pop("saturated", None)
        means = {name: value / steps for name, value in sums.items()}
        if triplets is not None:
            means["triplets"] = triplets / steps
            shares = {"active_triplets": active, "saturated_triplets": saturated}
            for name, count in shares.items():
                if count is not None:
                    means[name] = count / max(triplets, 1.0)
        return means
