"""Heads fitted to finished features."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from torch import nn

from patchknn.encoder.network import EncoderNetwork
from patchknn.hamming.itq import fit_itq
from patchknn.training.codes import fit_codes, fit_probe
from patchknn.training.judging import hash_codes


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [200, 60, 20])
    return (rng.normal(size=(280, 12)) + 3 * np.eye(12)[labels]).astype(np.float32), labels


def test_codes_are_those_of_itq_and_elements_are_one_in_the_mean(features):
    values, _ = features
    network = EncoderNetwork(nn.Identity(), 12, 8, ())
    fit_codes(network, values, seed=3)
    weight, bias = fit_itq(values, 8, 3)
    expected = np.packbits(values.astype(float) @ weight.T.astype(float) + bias > 0, axis=1)
    assert (hash_codes(network, values) == expected).mean() > 0.999
    vectors = values @ network.hash_layer.weight.detach().numpy().T
    vectors = vectors + network.hash_layer.bias.detach().numpy()
    assert np.abs(vectors).mean() == pytest.approx(1, rel=1e-3)


def test_the_probe_finds_small_classes_as_scikit_learn_does(features):
    values, labels = features
    network = EncoderNetwork(nn.Identity(), 12, 8, (3,))
    fit_codes(network, values, seed=0)
    (classifier,) = network.classifiers
    fit_probe(network, classifier, values, labels)
    weight = network.hash_layer.weight.detach().numpy()
    vectors = values @ weight.T + network.hash_layer.bias.detach().numpy()
    scores = vectors @ classifier.weight.detach().numpy().T
    predicted = (scores + classifier.bias.detach().numpy()).argmax(axis=1)
    peer = LogisticRegression(C=1e6, class_weight="balanced", max_iter=2000).fit(vectors, labels)
    assert (predicted == peer.predict(vectors)).mean() > 0.97
    assert (predicted[labels == 2] == 2).mean() > 0.9
