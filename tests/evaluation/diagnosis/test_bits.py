"""Figures of codes against loops, eigenvalues and scipy."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.diagnosis import bits
from patchknn.evaluation.diagnosis.bits import (
    ball_sizes,
    bit_statistics,
    collisions,
    diagnose_codes,
    unsettled_share,
)
from patchknn.hamming.packing import pack_bits

Make = Callable[..., Snapshot]


def correlated(seed: int, n: int = 300, k: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.random((n, k)) < rng.uniform(0.1, 0.9, k)
    values[:, 3] = values[:, 2] ^ (rng.random(n) < 0.1)
    return values


@pytest.mark.parametrize("seed", range(3))
def test_statistics_agree_with_scipy_and_eigenvalues(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bits, "_BLOCK", 64)  # several blocks
    values = correlated(seed)
    found = bit_statistics(pack_bits(values))
    assert found.ones == pytest.approx(values.mean(axis=0))
    entropy = [scipy.stats.entropy([p, 1 - p], base=2) for p in values.mean(axis=0)]
    assert found.entropy == pytest.approx(entropy)
    pairs = {
        (i, j): abs(scipy.stats.pearsonr(values[:, i].astype(float), values[:, j].astype(float))[0])
        for i, j in combinations(range(values.shape[1]), 2)
    }
    assert found.mean_correlation == pytest.approx(np.mean(list(pairs.values())))
    assert found.largest_correlation == pytest.approx(max(pairs.values()))
    assert found.pair == max(pairs, key=lambda pair: pairs[pair]) == (2, 3)
    eigenvalues = np.linalg.eigvalsh(np.cov(values.T.astype(float), bias=True))
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert found.effective_bits == pytest.approx(expected)


def test_stuck_bits_and_copies_of_a_bit() -> None:
    values = np.zeros((4, 8), bool)
    values[:, 0] = values[:, 1] = [True, True, False, False]
    values[:, 7] = True
    found = bit_statistics(pack_bits(values))
    assert found.effective_bits == pytest.approx(1)
    assert found.largest_correlation == pytest.approx(1)
    assert found.as_dict()["stuck_bits"] == 6
    alone = bit_statistics(pack_bits(values[:1]))
    assert (alone.effective_bits, alone.mean_correlation, alone.pair) == (0, None, None)


def test_independent_balanced_bits_count_fully() -> None:
    every = (np.arange(256)[:, None] >> np.arange(8)) & 1
    found = bit_statistics(pack_bits(every))
    assert found.effective_bits == pytest.approx(8)
    assert found.mean_correlation == pytest.approx(0)
    assert found.entropy == pytest.approx(np.ones(8))


def test_balls_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "_BLOCK", 50)
    values = correlated(1, n=120)
    centres = np.array([0, 17, 119])
    sizes = ball_sizes(pack_bits(values), centres, 5)
    for row, centre in zip(sizes, centres, strict=True):
        away = [int((values[i] != values[centre]).sum()) for i in range(120) if i != centre]
        assert row.tolist() == [sum(d <= radius for d in away) for radius in range(6)]


def test_collisions_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (80, 2)).astype(np.uint8)
    codes[:40, 0] = rng.integers(0, 9, 40)
    labels = rng.integers(-1, 3, 80).astype(np.int32)
    found = collisions(codes, labels, 3)
    by_code: dict[bytes, set[int]] = {}
    for code, label in zip(codes, labels, strict=True):
        by_code.setdefault(code.tobytes(), set()).add(int(label))
    for number, row in zip((0, 1, 2, -1), found, strict=True):
        own = [code.tobytes() for code, label in zip(codes, labels, strict=True) if label == number]
        assert row["rows"] == len(own)
        assert row["codes"] == len(set(own))
        mixed = [code for code in own if number >= 0 and len(by_code[code] - {-1}) > 1]
        assert row["mixed"] == len(mixed)


def test_unsettled_is_nothing_at_the_corners_and_what_chance_gives_around_zero() -> None:
    rng = np.random.default_rng(0)
    assert unsettled_share(rng.choice([-1.0, 1.0], (50, 8))) == 0
    expected = 2 * scipy.stats.norm.cdf(0.1 * np.sqrt(2 / np.pi)) - 1
    assert unsettled_share(rng.normal(size=(20_000, 8)) * 3) == pytest.approx(expected, abs=0.003)


def test_an_archive_is_diagnosed_by_its_live_rows(feature_archive: Make) -> None:
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=(n, 6)) for n in (40, 25)]
    labels = [rng.integers(-1, 3, len(part)) for part in parts]
    snapshot = feature_archive(parts, labels=labels)
    found = diagnose_codes(snapshot, 4)
    codes = np.concatenate([shard.codes for shard in snapshot.shards])
    assert found["bits"]["rows"] == found["codes"]["rows"] == 65
    assert found["codes"]["distinct"] == len({code.tobytes() for code in codes})
    assert [row["radius"] for row in found["balls"]] == [0, 1, 2, 3, 4]
    sizes = ball_sizes(codes, np.arange(65), 4)
    assert [row["mean"] for row in found["balls"]] == pytest.approx(sizes.mean(axis=0).tolist())
    assert [row["empty"] for row in found["balls"]] == pytest.approx((sizes == 0).mean(axis=0))
    named = {row["class"]: row["rows"] for row in found["codes"]["by_class"]}
    every = np.concatenate(labels)
    assert named == {
        name: int((every == number).sum())
        for number, name in ((0, "A"), (1, "B"), (2, "C"), (-1, None))
    }
    features = np.concatenate([shard.features for shard in snapshot.shards])
    vectors = snapshot.bundle().hash_vectors(features)
    assert found["bits"]["unsettled"] == unsettled_share(vectors)


def test_large_archives_are_sampled(feature_archive: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = feature_archive([np.random.default_rng(3).normal(size=(60, 6))])
    monkeypatch.setattr(bits, "MOST_ROWS", 25)
    monkeypatch.setattr(bits, "_BALLS_OF", 7)
    assert diagnose_codes(snapshot, 2)["bits"]["rows"] == 20
