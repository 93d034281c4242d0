"""Distances of slides against a literal loop in Python."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.archive.mosaics import Mosaic, mosaics_of
from patchknn.archive.settings import ArchiveSettings
from patchknn.wholeslide.mosaics import slide_distances
from patchknn.wholeslide.mosaics.slide_distances import HammingDistances, L2Distances

DIM, BITS = 6, 24


def _settings(dtype="float16"):
    return ArchiveSettings("a", "f", BITS, DIM, dtype, 224, 0.5, "float32")


def _mosaic(rng, name, size, *, spread=2, dtype="float16"):
    return Mosaic(
        name=name,
        patient=None,
        content=bytes(16),
        patches=size,
        features=rng.integers(-spread, spread + 1, (size, DIM)).astype(dtype),
        codes=rng.integers(0, 4, (size, BITS // 8), np.uint8),
        coords=rng.integers(0, 99, (size, 2)),
    )


def _many(rng, sizes, **given):
    return [_mosaic(rng, f"s{n:02}", size, **given) for n, size in enumerate(sizes)]


def _bits(a, b):
    return sum(int(x ^ y).bit_count() for x, y in zip(a.tolist(), b.tolist(), strict=True))


def _l2(a, b):
    differences = (float(x) - float(y) for x, y in zip(a, b, strict=True))
    return sum(d * d for d in differences) ** 0.5


def _minima(away, query, other):
    return [min(away(mine, its) for its in other) for mine in query]


_CASES = (
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 2),
)


@given(*_CASES)
def test_median_of_least_hamming_distances(seed, sizes, m, k, threads):
    rng = np.random.default_rng(seed)
    slides, query = _many(rng, sizes), _mosaic(rng, "q", m)
    admitted = rng.random(len(sizes)) < 0.8
    expected = []
    for number, slide in enumerate(slides):
        minima = _minima(_bits, query.codes, slide.codes)
        order = (statistics.median(minima), statistics.fmean(minima), slide.name)
        if admitted[number]:
            expected.append((order, number))
    expected.sort()
    found = HammingDistances(mosaics_of(slides, _settings()), threads).nearest(query, admitted, k)
    assert found.slides.tolist() == [number for _, number in expected[:k]]
    assert found.distances.tolist() == [order[0] for order, _ in expected[:k]]


@given(*_CASES, st.sampled_from([("float16", 1), ("float16", 50_000), ("float32", 100)]))
def test_mean_of_least_l2_distances(seed, sizes, m, k, threads, kind):  # noqa: PLR0917
    dtype, spread = kind
    rng = np.random.default_rng(seed)
    slides = _many(rng, sizes, spread=spread, dtype=dtype)
    query = _mosaic(rng, "q", m, spread=spread, dtype=dtype)
    admitted = rng.random(len(sizes)) < 0.8
    exact = [statistics.fmean(_minima(_l2, query.features, s.features)) for s in slides]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slide_distances, "_BLOCK_NUMBERS", 4 * DIM)
        distances = L2Distances(mosaics_of(slides, _settings(dtype)), threads)
        found = distances.nearest(query, admitted, k)
    assert len(found.slides) == min(k, int(admitted.sum()))
    assert admitted[found.slides].all()
    np.testing.assert_allclose(found.distances, [exact[n] for n in found.slides], rtol=1e-12)
    assert (np.diff(found.distances) >= 0).all()
    left = np.setdiff1d(np.flatnonzero(admitted), found.slides)
    if len(left):
        assert min(exact[n] for n in left) >= found.distances[-1] * (1 - 1e-12)


def test_equal_slides_are_in_the_order_of_their_names():
    rng = np.random.default_rng(0)
    one = _mosaic(rng, "a", 4)
    mosaics = mosaics_of([one._replace(name=name) for name in "abcd"], _settings())
    for kind in (HammingDistances, L2Distances):
        found = kind(mosaics).nearest(one, np.array([1, 0, 1, 1], bool), 2)
        assert found.slides.tolist() == [0, 2]
        assert found.distances.tolist() == [0, 0]


def test_features_beyond_single_precision_are_told_apart():
    rng = np.random.default_rng(0)
    slides = _many(rng, [3] * 6, dtype="float32")
    slides = [s._replace(features=s.features * np.float32(1e25)) for s in slides]
    found = L2Distances(mosaics_of(slides, _settings("float32"))).nearest(
        slides[2], np.ones(6, bool), 3
    )
    assert found.slides[0] == 2
    assert np.isfinite(found.distances).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_pairs_are_the_nearest_patches(seed, m, n):
    rng = np.random.default_rng(seed)
    slides, query = _many(rng, [2, n, 1]), _mosaic(rng, "q", m)
    mosaics = mosaics_of(slides, _settings())
    for kind, away, arrays in ((HammingDistances, _bits, "codes"), (L2Distances, _l2, "features")):
        pairs = kind(mosaics).pairs(query, 1)
        others = getattr(slides[1], arrays)
        for mine, partner, distance in zip(
            getattr(query, arrays), pairs.partners, pairs.distances, strict=True
        ):
            assert away(mine, others[partner]) == pytest.approx(distance, rel=1e-12)
            assert distance == pytest.approx(min(away(mine, its) for its in others), rel=1e-12)
