"""Paper A's sum: triplet ratio, Cauchy cross-entropy, Cauchy quantisation and classification."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from patchknn.losses.cauchy_cross_entropy import cauchy_cross_entropy
from patchknn.losses.cauchy_quantization import Quantization, cauchy_quantization
from patchknn.losses.cross_entropy import cross_entropy
from patchknn.losses.distances import DistanceName, distances_by_name, euclidean_distances
from patchknn.losses.mining import one_to_one_triplets
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import LossTerms
from patchknn.losses.triplet_ratio import saturated, triplet_ratio, violated


@dataclass(frozen=True)
class MultitaskWeights:
    """L = w_t·L1 + w_c·L2 + w_q·L3 + w_ce·CE; paper A prints none, so all are 1."""

    triplet: float = 1.0
    cauchy: float = 1.0
    quantization: float = 1.0
    cross_entropy: float = 1.0


@in_full_precision
def multitask(
    hash_vectors: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    weights: MultitaskWeights = MultitaskWeights(),
    gamma: float | None = None,
    distance: DistanceName = "euclidean",
    quantization: Quantization = "sound",
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> LossTerms:
    """Paper A's loss: hash_vectors (B, K), logits (B, C), labels (B,) int64.

    γ is K/2 unless given. ``distance`` is that of the Cauchy cross-entropy; the triplet ratio
    and the mining are Euclidean. ``class_weights`` (C,) and ``label_smoothing`` are
    those of the classification.
    """
    gamma = hash_vectors.shape[1] / 2 if gamma is None else gamma
    distances = euclidean_distances(hash_vectors)
    triplets = one_to_one_triplets(distances, labels)
    similarity = distances if distance == "euclidean" else distances_by_name(hash_vectors, distance)
    parts = {
        "triplet": triplet_ratio(distances, triplets),
        "cauchy": cauchy_cross_entropy(similarity, triplets, gamma),
        "quantization": cauchy_quantization(hash_vectors, triplets, gamma, quantization),
        "cross_entropy": cross_entropy(logits, labels, class_weights, label_smoothing),
    }
    total = (
        weights.triplet * parts["triplet"]
        + weights.cauchy * parts["cauchy"]
        + weights.quantization * parts["quantization"]
        + weights.cross_entropy * parts["cross_entropy"]
    )
    return LossTerms(
        total,
        {name: part.detach() for name, part in parts.items()},
        triplets=triplets.valid.sum(),
        active=violated(distances, triplets),
        saturated=saturated(distances, triplets),
    )
