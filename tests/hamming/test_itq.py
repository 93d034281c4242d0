"""ITQ against the properties that Gong et al. state."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.decomposition import PCA

from patchknn.errors import InputError, UsageError
from patchknn.hamming import itq
from patchknn.hamming.itq import (
    block_sizes,
    fit_itq,
    learn_rotation,
    principal_components,
    random_rotation,
)


def _clusters(n: int = 600, dim: int = 20, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    centres = generator.normal(size=(classes, dim)) * 3
    labels = generator.integers(0, classes, n)
    return centres[labels] + generator.normal(size=(n, dim)), labels


def _bits(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return features @ weight.astype(np.float64).T + bias > 0


def test_the_rotation_stays_orthogonal_and_the_error_never_grows():
    features, _ = _clusters()
    mean, components = principal_components(features)
    start = random_rotation(16, np.random.default_rng(0))
    rotation, errors = learn_rotation((features - mean) @ components[:, :16], start, 50)
    assert np.allclose(rotation @ rotation.T, np.eye(16), atol=1e-10)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(errors))
    assert errors[-1] < errors[0]


def test_components_are_those_of_scikit_learn_s_pca():
    features, _ = _clusters()
    mean, components = principal_components(features)
    oracle = PCA(n_components=8).fit(features)
    assert np.allclose(mean, oracle.mean_)
    assert np.allclose(np.abs(components[:, :8].T @ oracle.components_.T), np.eye(8), atol=1e-6)


def test_same_seed_same_map_and_other_seed_another():
    features, _ = _clusters()
    first, again, other = (fit_itq(features, 16, seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == first[1].dtype == np.float32


def test_codes_separate_clusters_and_bits_are_used():
    features, labels = _clusters()
    bits = _bits(features, *fit_itq(features, 16, 0))
    distances = (bits[:, None] != bits[None]).sum(axis=2)
    same = labels[:, None] == labels[None]
    assert distances[same].mean() + 3 < distances[~same].mean()
    assert (np.abs(bits.mean(axis=0) - 0.5) < 0.45).all()


@pytest.mark.parametrize("bits", [24, 64, 256])
def test_more_bits_than_dimensions_are_blocks_that_differ(bits):
    features, _ = _clusters(dim=20)
    weight, bias = fit_itq(features, bits, 0)
    assert weight.shape == (bits, 20)
    assert bias.shape == (bits,)
    assert len(np.unique(weight.round(4), axis=0)) == bits


def test_fewer_rows_than_bits():
    features = np.random.default_rng(0).normal(size=(5, 64))
    weight, bias = fit_itq(features, 48, 0)
    assert np.isfinite(weight).all()
    assert len(np.unique(_bits(features, weight, bias), axis=0)) == 5


@pytest.mark.parametrize(("bits", "rank"), [(48, 48), (48, 47), (64, 20), (8, 1), (1024, 100)])
def test_blocks_hold_all_bits_and_none_exceeds_the_rank(bits, rank):
    sizes = block_sizes(bits, rank)
    assert sum(sizes) == bits
    assert max(sizes) <= rank
    assert max(sizes) - min(sizes) <= 1


def test_many_rows_are_sampled(monkeypatch):
    features, _ = _clusters()
    monkeypatch.setattr(itq, "MAX_ROWS", 100)
    weight, bias = fit_itq(features, 8, 0)
    assert (np.abs(_bits(features, weight, bias).mean(axis=0) - 0.5) < 0.49).all()


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (np.ones((10, 4)), "at least two different features"),
        (np.zeros((0, 4)), "at least two different features"),
        (np.ones((1, 4)), "at least two different features"),
        (np.array([[0.0, 1.0], [np.nan, 2.0]]), "NaN"),
    ],
)
def test_features_that_allow_no_codes_are_refused(features, sentence):
    with pytest.raises(InputError, match=sentence):
        fit_itq(features, 8, 0)


def test_a_wrong_number_of_bits_is_a_usage_error():
    with pytest.raises(UsageError):
        fit_itq(np.eye(4), 12, 0)
