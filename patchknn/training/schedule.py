"""The optimiser with its two learning rates, and how they rise and fall over the steps."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import nn

from patchknn.encoder.network import EncoderNetwork
from patchknn.training.settings import TrainingSettings

_LAST_SHARE = 0.01


class Rates(Protocol):
    """What of a run's settings says how its rates rise and fall."""

    @property
    def warmup(self) -> float:
        """Share of the steps over which rates rise."""
        ...

    @property
    def schedule(self) -> str:
        """``cosine`` or ``step``."""
        ...

    @property
    def step_epochs(self) -> int:
        """Epochs between two steps."""
        ...

    @property
    def step_factor(self) -> float:
        """What a step multiplies rates by."""
        ...


def rate_factor(settings: Rates, step: int, steps: int, per_epoch: int) -> float:
    """What the learning rates are multiplied by in a step (from 0) of ``steps``.

    It rises linearly over the first share ``warmup``. Then ``cosine`` falls as a half cosine to
    1 %, and ``step`` is multiplied by ``step_factor`` after every ``step_epochs`` epochs.
    """
    rising = max(1, round(settings.warmup * steps)) if settings.warmup else 0
    if step < rising:
        return (step + 1) / (rising + 1)
    if settings.schedule == "step":
        drops: int = step // (settings.step_epochs * max(1, per_epoch))
        return float(settings.step_factor**drops)
    progress = (step - rising) / max(1, steps - rising)
    return _LAST_SHARE + (1 - _LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def make_optimizer(network: EncoderNetwork, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW or SGD over backbone and new layers, each at its own rate.

    Heads that the loss does not train are left out.
    """
    lr, backbone_lr = settings.lr, settings.backbone_lr
    groups = parameter_groups(network.backbone, backbone_lr, settings.weight_decay)
    if settings.learns_hash:
        groups += parameter_groups(network.hash_layer, lr, settings.weight_decay)
        groups += parameter_groups(network.classifiers, lr, settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum)
    return torch.optim.AdamW(groups)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its own base rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def parameter_groups(
    module: nn.Module, lr: float | None, weight_decay: float | None
) -> list[dict[str, Any]]:
    """The parameters of a module for an optimiser; biases and norms do not decay."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decaying = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": members, "lr": lr, "base_lr": lr, "weight_decay": decay}
        for members, decay in ((decaying, weight_decay), (others, 0.0))
        if members
    ]
