"""Heads fitted to finished features: codes by ITQ, and a linear probe on the hash vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from patchknn.encoder.network import EncoderNetwork
from patchknn.hamming.itq import fit_itq
from patchknn.losses.cross_entropy import cross_entropy

_PROBE_STEPS = 200
_PROBE_DECAY = 1e-3


def fit_codes(
    network: EncoderNetwork, features: npt.NDArray[np.float32], seed: int, iterations: int = 50
) -> None:
    """Set the hash layer to the ITQ map (Gong 2013) of features (N, D).

    The map is scaled so that a hash vector's elements are 1 in the mean, as a learnt one's are
    driven to be; codes do not hang on that.
    """
    weight, bias = fit_itq(features, network.hash_layer.out_features, seed, iterations)
    size = np.abs(features[:4096] @ weight.T + bias).mean()
    set_linear(network.hash_layer, weight / size, bias / size)


def fit_probe(
    network: EncoderNetwork,
    classifier: nn.Linear,
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
) -> None:
    """Fit a classifier on the hash vectors of features (N, D), labels (N,) from 0.

    Multinomial logistic regression with a little L2 and all classes weighing the same, by
    L-BFGS in float64 from zero: no chance in it. It gives answers a second opinion where the
    loss trains no classifier.
    """
    with torch.no_grad():
        vectors = torch.from_numpy(features).double()
        layer = network.hash_layer
        vectors = vectors @ layer.weight.detach().cpu().double().T + layer.bias.cpu().double()
    targets = torch.from_numpy(labels)
    counts = torch.bincount(targets, minlength=classifier.out_features).clamp(min=1)
    weights = (1.0 / counts).double()
    probe = nn.Linear(vectors.shape[1], classifier.out_features, dtype=torch.float64)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(
        probe.parameters(), max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(probe(vectors), targets, weights)
        loss = loss + _PROBE_DECAY * probe.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    set_linear(classifier, probe.weight.detach().numpy(), probe.bias.detach().numpy())


def set_linear(
    layer: nn.Linear, weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]
) -> None:
    """Copy a linear map into a layer: weight (out, in), bias (out,)."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight, np.float32)))
        layer.bias.copy_(torch.from_numpy(np.asarray(bias, np.float32)))
