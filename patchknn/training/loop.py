"""The steps of fine-tuning: one epoch over the whole network, resumable after any step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from patchknn.datasets.augmentation import AUGMENTATIONS, Augment
from patchknn.datasets.balanced import BalancedBatchSampler
from patchknn.datasets.transforms import normalise
from patchknn.errors import PatchknnError
from patchknn.losses.terms import LossTerms
from patchknn.training.context import Context
from patchknn.training.objectives import make_objective
from patchknn.training.schedule import make_optimizer, rate_factor, set_rates

_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}
# Asking a GPU for a number makes it wait; on a CPU it costs nothing.
_GPU_CHECK_INTERVAL = 16


@dataclass
class Position:
    """Where a run stands: ``step`` steps of ``epoch`` (from 1) are done; what they summed up to."""

    epoch: int = 1
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0


class FineTuning:
    """Network, optimiser and precision of the second phase, stepping through balanced batches."""

    def __init__(self, context: Context) -> None:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

        settings, network, device = context.settings, context.network, context.device
        self.position = Position()
        self.network = network
        self._context, self._settings, self._store = context, settings, context.store
        self._objective = make_objective(settings)
        labels = context.labels[: context.n_train]
        self._labels = torch.from_numpy(labels)
        readable = set(context.store.readable(range(len(labels))))
        sampled = [label if i in readable else -1 for i, label in enumerate(labels.tolist())]
        self._sampler = BalancedBatchSampler(sampled, *settings.batch_shape, settings.seed)
        recipe = AUGMENTATIONS["colour" if settings.augment else "none"]
        self._augment = Augment(recipe, settings.size)
        self.optimizer = make_optimizer(network, settings)
        accelerator = "cuda" if device.type == "cuda" else "cpu"
        self._fabric = Fabric(
            accelerator=accelerator,
            devices=[device.index or 0] if accelerator == "cuda" else 1,
            precision=_FABRIC_PRECISION[context.precision],
            plugins=[LightningEnvironment()],  # one process, also inside a Slurm job
        )
        network.backbone.to(memory_format=torch.channels_last)
        self._model, self._stepper = self._fabric.setup(network, self.optimizer)
        self._scaled = context.precision == "float16"

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self._sampler)

    @property
    def scaler_state(self) -> dict[str, Any]:
        """The loss scale of float16, empty otherwise."""
        return dict(self._fabric.strategy.precision.state_dict())

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """Give the loss scale back."""
        if state:
            self._fabric.strategy.precision.load_state_dict(state)

    def run_epoch(self) -> dict[str, float]:
        """Do the rest of the epoch at ``position`` and return its means.

        Raises StoppedError only between two steps, where position and state are whole, and
        PatchknnError where the loss is no longer a number.
        """
        position = self.position
        if position.step == 0:
            # Each epoch has its own stream of chance, so that a resumed run draws the same.
            torch.manual_seed((self._settings.seed * 1_000_003 + position.epoch) % 2**63)
            position.sums, position.images = {}, 0
        self._sampler.set_epoch(position.epoch)
        lists = list(self._sampler)[position.step :]
        label = f"epoch {position.epoch}/{self._settings.epochs}"
        for images, indices in self._context.progress(
            self._store.batches(lists), total=len(lists), label=label
        ):
            self._step(images, indices)
            position.step += 1
            self._context.check()
        self._check_finite()
        return self._means()

    def _step(self, images: Tensor, indices: Tensor) -> None:
        if len(indices) == 0:
            return
        self._train_mode()
        done = (self.position.epoch - 1) * self.steps + self.position.step
        total = self._settings.epochs * self.steps
        set_rates(self.optimizer, rate_factor(done, total, self._settings.warmup))
        device = self._fabric.device
        inputs = self._prepared(images.to(device, non_blocking=True))
        labels = self._labels[indices].to(device, non_blocking=True)
        terms = self._objective(self._model(inputs), labels)
        self._fabric.backward(terms.total)
        norm = self._fabric.clip_gradients(
            self._model,
            self._stepper,
            max_norm=self._settings.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        self._note(terms, norm)
        if self._fabric.device.type == "cpu" or self.position.step % _GPU_CHECK_INTERVAL == 0:
            self._check_finite()
        self._stepper.step()
        self._stepper.zero_grad()
        self.position.images += len(indices)

    def _prepared(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            inputs = normalise(self._augment(images), self._context.mean, self._context.std)
            return inputs.contiguous(memory_format=torch.channels_last)

    def _train_mode(self) -> None:
        self.network.train()
        if self._settings.frozen_batch_norm:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _note(self, terms: LossTerms, norm: Tensor | None) -> None:
        values = {"loss": terms.total.detach(), **terms.parts}
        counts = {"triplets": terms.triplets, "active": terms.active, "saturated": terms.saturated}
        values |= {name: value for name, value in counts.items() if value is not None}
        broken = ~terms.total.detach().isfinite()
        if norm is not None and not self._scaled:  # float16 overflows on purpose and steps back
            broken = broken | ~norm.isfinite()
        sums = self.position.sums
        for name, value in {**values, "broken": broken, "steps": torch.ones(())}.items():
            sums[name] = sums[name] + value.double() if name in sums else value.double()

    def _check_finite(self) -> None:
        sums = self.position.sums
        if "broken" not in sums or sums["broken"].item() == 0:
            return
        step, epoch = self.position.step + 1, self.position.epoch
        where = f"epoch {epoch}, step {min(step, self.steps)} of {self.steps}"
        bad = [n for n, v in sums.items() if n not in {"loss", "broken"} and not v.isfinite()]
        part = f" ({', '.join(bad)})" if bad else ""
        message = (
            f"The loss is no longer a number in {where}{part}; the last good state is kept: "
            "train again with a lower --lr and --backbone-lr."
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
