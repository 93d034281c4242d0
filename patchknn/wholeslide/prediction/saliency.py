"""Where on a slide an answer comes from: attention, or gradient times input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from patchknn.wholeslide.grids.grid import Grid
from patchknn.wholeslide.learning.batches import tissue_part, whole

Floats = npt.NDArray[np.float64]


def method_of(network: nn.Module) -> str:
    """``attention`` where the network has it, else ``gradient``."""
    return "attention" if hasattr(network, "attention") else "gradient"


def saliency(network: nn.Module, grid: Grid, output: int) -> Floats:
    """How much each place (H, W) matters for an output; 0 off tissue.

    Attention weights, which sum to 1 and do not hang on the output, where the network has them
    (Ilse 2018). Else gradient times input: Σ over features of ∂y/∂x · (x − mean of the training
    vectors), with y the output, before the mean of the others where there are several; what is
    above 0 speaks for it. The sum over a linear model's places is y less what a slide of nothing
    but the mean would give.
    """
    network.eval()
    device = next(network.parameters()).device
    features, mask = (part.to(device) for part in whole(grid))
    values = np.zeros(grid.mask.shape)
    if not grid.mask.any():
        return values
    chosen: Any = network
    if method_of(network) == "attention":
        with torch.inference_mode():
            found = chosen.attention(features, mask)[0]
    else:
        features.requires_grad_()
        outputs = chosen(features, mask)[0]
        (gradient,) = torch.autograd.grad(_margin(outputs, output), features)
        mean: Tensor = chosen.input.mean
        found = (gradient * (features - mean.view(1, -1, 1, 1)))[0].sum(dim=0) * mask[0]
    values[tissue_part(grid.mask)] = found.detach().double().cpu().numpy()
    return values


def most_salient(values: Floats, mask: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.int64]:
    """The places (n, 2), rows and columns, of the ``count`` largest values above 0, in order.

    Equal ones come row by row.
    """
    asked = np.where(mask & (values > 0), values, 0.0).ravel()
    order = np.argsort(-asked, kind="stable")[:count]
    order = order[asked[order] > 0]
    return np.stack(np.unravel_index(order, values.shape), axis=1).astype(np.int64)


def _margin(outputs: Tensor, output: int) -> Tensor:
    if len(outputs) == 1:
        return outputs[0]
    others = (outputs.sum() - outputs[output]) / (len(outputs) - 1)
    return outputs[output] - others
