"""Fine-tuning: what one epoch over the whole network does, and what it must remember."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchknn.encoder.network import EncoderOutput
from patchknn.training.averaging import AveragedWeights
from patchknn.training.bank import BankKeeper
from patchknn.training.batches import TaskBatches
from patchknn.training.checkpoint import Groups
from patchknn.training.context import Context
from patchknn.training.descent import Descent, Learnt, Wording
from patchknn.training.objectives import InBank, make_objective
from patchknn.training.schedule import make_optimizer

# A batch's numbers, what is held of those that can be read, and their numbers.
_Batch = tuple[list[int], tuple[Tensor, Tensor]]


class FineTuning:
    """The second phase: network, objective and optimiser, stepping through balanced batches.

    Several processes do one slice of each batch each; the loss is that of the whole batch.
    ``left_out`` are the unreadable inputs that no batch names: those known now, or, where a run is
    taken up again, those known when it began.
    """

    counted = "images"

    def __init__(self, context: Context, left_out: Sequence[int] | None = None) -> None:
        settings, network = context.settings, context.network
        self.network = network
        self._context, self._settings, self._ranks = context, settings, context.ranks
        self._objective = make_objective(context)
        self._labels = torch.from_numpy(context.labels[: context.n_train])
        # What turns out unreadable later is passed over where it comes: batches stay as they are.
        self._left_out = sorted(context.inputs.unreadable if left_out is None else left_out)
        self._batches = TaskBatches(context, set(self._left_out))
        optimizer = make_optimizer(network, settings)
        network.backbone.to(memory_format=torch.channels_last)
        model: Any = torch.compile(network) if settings.compile else network
        # What a loss does not train takes no part: averaging would wait for its gradients.
        for head in () if settings.learns_hash else (network.hash_layer, *network.classifiers):
            head.requires_grad_(requires_grad=False)
        self.descent = Descent(
            model,
            optimizer,
            context.ranks,
            settings,
            batches=len(self._batches),
            precision=context.precision,
            wording=Wording("a lower --lr and --backbone-lr"),
        )
        # Now the first process's weights are those of all.
        self._average = AveragedWeights(network, settings.ema) if settings.ema else None
        if self._average is not None:
            self.descent.after_descent = self._average.update
        self._bank = BankKeeper(context) if settings.bank else None

    def run_epoch(self, after_step: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Do the rest of the epoch where the descent stands and return its means.

        ``after_step`` is called between two steps of the optimiser. Raises as ``Descent``.
        """
        position, ranks = self.descent.position, self._ranks
        if position.step == 0:
            # Each epoch has its own stream of chance, so that a resumed run draws the same.
            # Processes drop out different units of theirs.
            seed = self._settings.seed * 1_000_003 + position.epoch + self._ranks.rank * 7_919_003
            torch.manual_seed(seed % 2**63)
        lists = self._batches.of_epoch(position.epoch)[position.step :]
        label = f"epoch {position.epoch}/{self._settings.last_epoch}"
        held = self._context.inputs.batches([ranks.share(numbers) for numbers in lists])
        shown = self._context.progress(held, total=len(lists), label=label)

        def between() -> None:
            self._context.check()
            after_step()

        return self.descent.run_epoch(zip(lists, shown, strict=True), self._learn, between)

    def judging(self) -> AbstractContextManager[None]:
        """Within it the network is as it is judged and kept: its average, where there is one."""
        return nullcontext() if self._average is None else self._average.in_place()

    def state(self) -> tuple[Groups, dict[str, Any]]:
        """What a checkpoint must hold beside network, optimiser and position."""
        groups: Groups = {"random": _random_states(self._context.device)}
        state: dict[str, Any] = {
            "left_out": self._left_out,
            "unreadable": list(self._context.inputs.unreadable.items()),
        }
        if self._average is not None:
            groups["average"] = self._average.state
            state["averaged"] = self._average.steps
        if self._bank is not None and self._bank.kept is not None:
            groups["bank"] = self._bank.kept
            state["bank_made_at"] = self._bank.made_at
        return groups, state

    def restore(self, groups: Groups, state: dict[str, Any]) -> None:
        """Give back what ``state`` gave."""
        if self._average is not None:
            self._average.restore(groups["average"], state["averaged"])
        if self._bank is not None and "bank" in groups:
            self._bank.keep(groups["bank"], state["bank_made_at"])
        self._context.inputs.leave_out(dict(state["unreadable"]))
        _restore_random(self._context.device, groups["random"])

    def _learn(self, batch: _Batch) -> Learnt | None:
        numbers, (rows, indices) = batch
        # Between two steps of the optimiser only: a stop during the refresh must lose no gradient.
        if self._bank is not None and self.descent.between_steps:
            self._bank.refresh(self.descent.done)
        self._train_mode(len(rows))
        place = {number: index for index, number in enumerate(numbers)}
        places = [place[number] for number in indices.tolist()]
        generator = torch.Generator().manual_seed(self._chance())
        device = self._context.device
        with torch.no_grad():
            held = rows.to(device, non_blocking=True)
            inputs = self._context.inputs.varied(held, places, len(numbers), generator)
        labels = self._ranks.gather(self._labels[indices].to(device, non_blocking=True))
        if len(labels) == 0:
            return None
        output = self._gathered(self.descent.model(inputs))
        return Learnt(self._objective(output, labels, self._in_bank(indices)), len(labels))

    def _gathered(self, output: EncoderOutput) -> EncoderOutput:
        gather = self._ranks.gather
        return EncoderOutput(
            gather(output.features),
            gather(output.hash_vectors),
            tuple(gather(logits) for logits in output.logits),
        )

    def _in_bank(self, indices: Tensor) -> InBank | None:
        if self._bank is None or self._bank.bank is None:
            return None
        return InBank(self._bank.bank, self._ranks.gather(indices.to(self._context.device)))

    def _chance(self) -> int:
        # A seed of this batch alone: whoever takes the run up again draws the same.
        position = self.descent.position
        key = [self._settings.seed, position.epoch, position.step]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

    def _train_mode(self, rows: int) -> None:
        self.network.train()
        # One image, as a process's slice of a small batch may be, has no statistics of its own.
        if self._settings.frozen_batch_norm or rows < 2:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
