"""The search of a segment of several shards by sketches, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchknn.archive.create import create_archive
from patchknn.archive.index.update import update_index
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.hamming.kernels import available, use
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

_DIM = 256


def _features(generator, n):
    """Near few directions, some of them twice; a few far away."""
    directions = np.random.default_rng(1).normal(size=(6, _DIM))
    values = generator.normal(size=(n, 6)) @ directions
    values += 0.02 * generator.normal(size=values.shape)
    values[: n // 20] *= 2
    values[n // 2 : n // 2 + n // 10] = values[: n // 10]
    return values.astype(np.float16)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Seven shards of 8 bits, grown in two steps, in one segment."""
    folder = tmp_path_factory.mktemp("sketched")
    generator = np.random.default_rng(0)
    hash_map = LinearMap(generator.normal(size=(8, _DIM)), np.zeros(8))
    write_bundle(folder / "encoder", EncoderDescription(_DIM, 8, "sign"), hash_map)
    bundle, path = load_bundle(folder / "encoder"), folder / "archive"
    create_archive(path, bundle, patch_px=32, mpp=None)
    for number, n in enumerate((900, 40, 700, 1, 300, 600, 400)):
        features = _features(generator, n)
        coords = np.stack([np.arange(n), np.arange(n)], axis=1)
        source = Source(f"s{number}", "/s", 1, 1, bytes([number]) * 16)
        codes, zeros = bundle.codes(features), np.zeros(n, np.int32)
        with ArchiveWriter(path) as writer:
            writer.add(Rows(features, codes, coords, zeros, zeros, (source,), ("A",)))
            writer.publish()
        if number == 3:
            update_index(path)
    update_index(path)
    snapshot = open_archive(path)
    (segment,) = snapshot.cover.segments
    assert segment.rows is not None
    assert segment.sketch is not None
    return path


def _expected(snapshot, feature, code, s):
    codes = np.concatenate([shard.codes for shard in snapshot.shards])
    features = np.concatenate([shard.features for shard in snapshot.shards]).astype(np.float64)
    bits = np.unpackbits(codes, axis=1) != np.unpackbits(code)
    ball = np.flatnonzero(bits.sum(axis=1) <= s.radius)
    distances = np.sqrt(((features[ball] - feature.astype(np.float64)) ** 2).sum(axis=1))
    return len(ball), np.sort(distances)[: s.k], dict(zip(ball.tolist(), distances, strict=True))


@pytest.mark.parametrize("kernels", available())
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    k=st.sampled_from([1, 3, 10, 100, 5000]),
    radius=st.integers(1, 8),
    n_queries=st.sampled_from([1, 40]),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_finds_what_brute_force_finds(path, *, kernels, k, radius, n_queries, seed):
    generator = np.random.default_rng(seed)
    snapshot = open_archive(path)  # anew: its tables stay with the kernels that they began with
    features = _features(generator, n_queries)
    features[::2] = snapshot.shards[0].features[generator.integers(0, 900, len(features[::2]))]
    s = SearchSettings(k=k, radius=radius, max_radius=radius, exclude_same="none")
    queries = [Query(f"q{number}", feature) for number, feature in enumerate(features)]
    codes = snapshot.bundle().codes(features)
    with use(kernels):
        searcher = Searcher(snapshot, s)
        together = list(searcher.search_many(queries))
        assert together[:3] == [searcher.search(query) for query in queries[:3]]
    for answer, feature, code in zip(together, features, codes, strict=True):
        n_rows, nearest, of_row = _expected(snapshot, feature, code, s)
        assert answer.ball == n_rows
        found = np.array([n.l2 for n in answer.neighbours])
        np.testing.assert_allclose(found, nearest)
        np.testing.assert_allclose(found, [of_row[n.row] for n in answer.neighbours])
        assert len({n.row for n in answer.neighbours}) == len(found)
    assert snapshot.cover.problems == ()
