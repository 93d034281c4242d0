"""What a network says of whole slides, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from patchknn.training.ranks import Ranks
from patchknn.wholeslide.grids.grid import Grid
from patchknn.wholeslide.learning.batches import whole
from patchknn.wholeslide.tasks.task import Floats


def outputs_of(network: nn.Module, grids: Sequence[Grid], outputs: int) -> Floats:
    """Outputs (n, O) float64 of grids; the network is left in evaluation mode.

    Whole slides have unlike sizes: one at a time they need no padding and little memory.
    """
    network.eval()
    device = next(network.parameters()).device
    result = np.zeros((len(grids), outputs))
    with torch.inference_mode():
        for number, grid in enumerate(grids):
            features, mask = (part.to(device) for part in whole(grid))
            result[number] = network(features, mask)[0].double().cpu().numpy()
    return result


def shared_outputs(network: nn.Module, grids: Sequence[Grid], outputs: int, ranks: Ranks) -> Floats:
    """The same, each of several processes doing some of the grids; all have all of the outputs."""
    own = slice(*ranks.bounds(len(grids)))
    return ranks.gather_arrays(outputs_of(network, grids[own], outputs))
