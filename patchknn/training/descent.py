"""The descent of a loss: steps of one optimiser, in the precision and the processes of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from patchknn.errors import PatchknnError
from patchknn.losses.terms import LossTerms
from patchknn.training.ranks import Ranks
from patchknn.training.schedule import Rates, rate_factor, set_rates

# Asking a GPU for a number makes it wait; on a CPU it costs nothing.
_GPU_CHECK_INTERVAL = 16
_SEEN_AT_ONCE = ("cpu",)
_NOT_SUMMED = ("loss", "broken")
# Each overflow halves the scale, from 65536: below this, sixteen followed each other.
_LEAST_SCALE = 1.0

Batch = TypeVar("Batch")


class StepSettings(Rates, Protocol):
    """What of a run's settings says how it descends."""

    @property
    def accumulate(self) -> int:
        """Batches of one step."""
        ...

    @property
    def clip_norm(self) -> float:
        """Largest norm of a gradient; 0: any."""
        ...

    @property
    def last_epoch(self) -> int:
        """How many epochs the rates are made for."""
        ...


class Wording(NamedTuple):
    """How a loss that is no number is told of: which rates are too high, and in which training.

    ``kept``: what was saved before may be of use to a run with other settings.
    """

    rates: str
    training: str = ""
    kept: bool = True


class Learnt(NamedTuple):
    """What a batch gave: the loss, and how many things it was of."""

    terms: LossTerms
    things: int


@dataclass
class Position:
    """Where a run stands: ``step`` batches of ``epoch`` (from 1) are done; what they summed to.

    ``seen`` counts the things in them.
    """

    epoch: int = 1
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    seen: int = 0


class Descent:
    """A model and its optimiser, stepping through ``batches`` an epoch, resumable after any step.

    ``model`` is what to call in training: the network in the run's precision, as a part of all its
    processes. ``after_descent`` is called after each step of the optimiser.
    """

    def __init__(
        self,
        network: Any,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        settings: StepSettings,
        *,
        batches: int,
        precision: str,
        wording: Wording,
    ) -> None:
        self.position = Position()
        self.optimizer, self.batches = optimizer, batches
        self.model, self._stepper = ranks.fabric.setup(network, optimizer)
        self._fabric, self._ranks, self._settings = ranks.fabric, ranks, settings
        self._scaled = precision == "float16"
        self._wording = wording
        self.after_descent: Callable[[], None] | None = None
        self.restore_scaler(ranks.scaler_state)

    @property
    def scaler_state(self) -> dict[str, Any]:
        """The loss scale of float16, empty otherwise."""
        return dict(self._fabric.strategy.precision.state_dict())

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """Give the loss scale back."""
        if state:
            self._fabric.strategy.precision.load_state_dict(state)

    @property
    def done(self) -> int:
        """Batches of the whole run so far."""
        return (self.position.epoch - 1) * self.batches + self.position.step

    @property
    def between_steps(self) -> bool:
        """Whether the next batch begins a step of the optimiser."""
        return self._ends_a_step(self.position.step)

    def run_epoch(
        self,
        batches: Iterable[Batch],
        learn: Callable[[Batch], Learnt | None],
        after_step: Callable[[], None],
    ) -> dict[str, float]:
        """Do the rest of the epoch at ``position``, which is ``batches``; return its means.

        ``learn`` gives the loss of a batch, or None where nothing is left of it. ``after_step`` is
        called between two steps of the optimiser, where position and state are whole. Raises
        StoppedError only there, and PatchknnError where the loss is no longer a number.
        """
        position = self.position
        if position.step == 0:
            position.sums, position.seen = {}, 0
        for batch in batches:
            self._learn(batch, learn)
            position.step += 1
            if self.between_steps:
                after_step()
        self.check_finite()
        return self._means()

    def _learn(self, batch: Batch, learn: Callable[[Batch], Learnt | None]) -> None:
        last = self._ends_a_step(self.position.step + 1)
        alone = self._ranks.count == 1 or last
        with nullcontext() if alone else self._fabric.no_backward_sync(self.model):
            learnt = learn(batch)
            if learnt is None:
                return
            self._fabric.backward(learnt.terms.total / self._in_step())
        self._note(learnt.terms)
        if last:
            self._descend()
        self.position.seen += learnt.things

    def _descend(self) -> None:
        settings = self._settings
        total = settings.last_epoch * self.batches
        set_rates(self.optimizer, rate_factor(settings, self.done, total, self.batches))
        norm = self._fabric.clip_gradients(
            self.model,
            self._stepper,
            max_norm=settings.clip_norm or math.inf,
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
        if self.after_descent is not None:
            self.after_descent()

    def _ends_a_step(self, batches: int) -> bool:
        return batches % self._settings.accumulate == 0 or batches == self.batches

    def _in_step(self) -> int:
        """Batches in this step of the optimiser: the last one of an epoch may have fewer."""
        most = self._settings.accumulate
        first = self.position.step - self.position.step % most
        return min(most, self.batches - first)

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
        where = f"epoch {epoch}, step {min(step, self.batches)} of {self.batches}"
        where += f" of {self._wording.training}" if self._wording.training else ""
        bad = [n for n, v in sums.items() if n not in _NOT_SUMMED and not v.isfinite()]
        part = f" ({', '.join(bad)})" if bad else ""
        kept = "; the last good state is kept" if self._wording.kept else ""
        rates = self._wording.rates + (", or with --precision float32" if self._scaled else "")
        message = (
            f"The loss is no longer a number in {where}{part}{kept}: train again with {rates}."
        )
        if overflows:
            message = (
                f"The gradients are beyond float16 at every scale in {where}{kept}: train again "
                "with --precision bfloat16 or float32."
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
