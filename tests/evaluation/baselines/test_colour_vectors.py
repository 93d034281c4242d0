import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.evaluation.baselines.colour_vectors import colour_histograms, mean_colours


def picture(rng: np.random.Generator) -> np.ndarray:
    shape = (*rng.integers(1, 9, 2).tolist(), 3)
    return rng.integers(0, 256, shape).astype(np.uint8)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_l2_of_histograms_is_the_hellinger_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = [picture(rng), picture(rng)]
    # NumPy's own histogram over the cube of colours is the oracle.
    first, second = (
        np.histogramdd(one.reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0].ravel()
        / (one.shape[0] * one.shape[1])
        for one in pictures
    )
    hellinger = np.sqrt(max(0.0, 1 - np.sqrt(first * second).sum()))
    a, b = colour_histograms(pictures).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(a - b), hellinger, atol=2e-4)


def test_edges_of_the_boxes() -> None:
    dark, next_box = np.full((1, 1, 3), 31, np.uint8), np.full((1, 1, 3), 32, np.uint8)
    black = np.zeros((1, 1, 3), np.uint8)
    vectors = colour_histograms([black, dark, next_box])
    assert (vectors[0] == vectors[1]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[0] - vectors[2]), 1, rtol=1e-6)


def test_colours_of_a_worked_picture_and_of_none() -> None:
    image = np.array([[[0, 10, 255], [2, 20, 255]]], np.uint8)
    np.testing.assert_array_equal(mean_colours([image]), [[1, 15, 255]])
    assert mean_colours([]).shape == (0, 3)
    assert colour_histograms([]).shape == (0, 512)
