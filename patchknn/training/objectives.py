"""A loss by its name on the command line, as one function of a forward pass."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from patchknn.encoder.network import EncoderOutput
from patchknn.losses.cross_entropy import cross_entropy
from patchknn.losses.deep_knn import deep_knn
from patchknn.losses.multitask import MultitaskWeights, multitask
from patchknn.losses.terms import LossTerms
from patchknn.losses.triplet import triplet
from patchknn.training.settings import TrainingSettings

Objective = Callable[[EncoderOutput, Tensor], LossTerms]


def make_objective(settings: TrainingSettings) -> Objective:
    """The loss of the settings: what the network gives for a batch, labels (B,) → terms.

    Multitask and cross-entropy act on the hash vectors and the logits, deep kNN and the triplet
    loss on the features.
    """
    weights = MultitaskWeights(settings.w_t, settings.w_c, settings.w_q, settings.w_ce)

    def features_of(output: EncoderOutput) -> Tensor:
        # On the sphere features cannot escape a margin by shrinking to a point.
        if settings.normalize:
            return functional.normalize(output.features.float(), dim=1)
        return output.features

    def of_multitask(output: EncoderOutput, labels: Tensor) -> LossTerms:
        return multitask(
            output.hash_vectors,
            _logits(output),
            labels,
            weights=weights,
            gamma=settings.gamma,
            distance=settings.cauchy_distance,
            quantization=settings.quantization,
        )

    def of_cross_entropy(output: EncoderOutput, labels: Tensor) -> LossTerms:
        total = cross_entropy(_logits(output), labels)
        return LossTerms(total, {"cross_entropy": total.detach()})

    def of_deep_knn(output: EncoderOutput, labels: Tensor) -> LossTerms:
        return deep_knn(
            features_of(output),
            labels,
            alpha=settings.alpha if settings.alpha is not None else 2.0,
            positives=settings.positives,
            negatives=settings.negatives,
        )

    def of_triplet(output: EncoderOutput, labels: Tensor) -> LossTerms:
        return triplet(features_of(output), labels, mining=settings.mining, margin=settings.margin)

    by_name: dict[str, Objective] = {
        "multitask": of_multitask,
        "cross-entropy": of_cross_entropy,
        "deep-knn": of_deep_knn,
        "triplet": of_triplet,
    }
    return by_name[settings.loss]


def _logits(output: EncoderOutput) -> Tensor:
    if output.logits is None:
        message = "this loss needs a network with a classifier"
        raise ValueError(message)
    return output.logits
