"""An exponential average of the weights over the steps, which is what gets judged and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Averages of a network's floating-point parameters and buffers.

    ``decay`` per step; the first steps forget faster, min(decay, (1 + t)/(10 + t)) after t steps,
    so that a short run does not keep its beginning. Counters are taken over as they are.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self.steps = 0
        self.state = {name: v.detach().clone() for name, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one step of the optimiser."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        current = self._network.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.state[name] for name in floating],
            [current[name] for name in floating],
            1 - decay,
        )
        for name in current.keys() - set(floating):
            self.state[name].copy_(current[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the network has the averages, afterwards its own weights again."""
        own = {name: value.clone() for name, value in self._network.state_dict().items()}
        self._network.load_state_dict(self.state)
        try:
            yield
        finally:
            self._network.load_state_dict(own)

    def restore(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Give back what a checkpoint kept."""
        self.steps = steps
        for name, value in self.state.items():
            value.copy_(state[name])
