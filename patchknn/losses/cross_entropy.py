"""Classification on the hash vector (paper A, 2.3), with class weights where they are given."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from patchknn.losses.precision import in_full_precision


@in_full_precision
def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy: logits (B, C), labels (B,) int64 → scalar.

    ``class_weights`` (C,) weigh each row by its class, relative to the sum of the weights in
    the batch (paper B's weighted baseline). Without a row it is 0, still with a graph.
    """
    if len(labels) == 0:
        return logits.sum()
    return functional.cross_entropy(logits, labels, weight=class_weights)
