from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import UsageError
from patchknn.evaluation.comparison.prefixes import PrefixSearcher
from patchknn.search.answers import Answer, Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]


@pytest.fixture
def archive(feature_archive: Make) -> Snapshot:
    rng = np.random.default_rng(8)
    return feature_archive([rng.integers(-3, 4, (n, 5)).astype(float) for n in (70, 50)], bits=24)


def queries(n: int = 25) -> list[Query]:
    rng = np.random.default_rng(1)
    features = rng.integers(-3, 4, (n, 5)).astype(np.float16)
    return [Query(f"q{i}", features[i], patient="P1", label="A") for i in range(n)]


LIMITS: list[dict[str, Any]] = [
    {},
    {"radius": 0, "k": 12},
    {"radius": 2, "exclude_same": "patient"},
    {"radius": 0, "max_radius": 1, "k": 30},
    {"max_per": ("slide", 1), "k": 6, "labelled_only": True},
]


@pytest.mark.parametrize("limits", LIMITS)
def test_all_bits_answer_as_the_search_itself(archive: Snapshot, limits: dict[str, Any]) -> None:
    settings = SearchSettings(**{"exclude_same": "none", **limits})
    whole = list(Searcher(archive, settings).search_many(queries()))
    assert list(PrefixSearcher(archive, settings, 24).search_many(queries())) == whole
    assert any(isinstance(one, Answer) and one.widened for one in whole)


@pytest.mark.parametrize("bits", [8, 16])
def test_fewer_bits_against_a_loop(archive: Snapshot, bits: int) -> None:
    k, radius, widest = 7, 1, max(1, bits // 4)
    settings = SearchSettings(k=k, radius=radius, exclude_same="none")
    answers = list(PrefixSearcher(archive, settings, bits).search_many(queries()))
    rows = [archive.row(row) for row in range(archive.n_rows)]
    features = np.concatenate([np.asarray(s.features, np.float64) for s in archive.shards])
    stored = [np.unpackbits(np.frombuffer(row.code, np.uint8))[:bits] for row in rows]
    for query, answer in zip(queries(), answers, strict=True):
        code = np.unpackbits(archive.bundle().codes(query.feature[None])[0])[:bits]
        away = [int((code != one).sum()) for one in stored]
        used = radius
        while sum(bit <= used for bit in away) < k and used < widest:
            used += 1
        ball = [number for number, bit in enumerate(away) if bit <= used]
        ranked = sorted(
            ball,
            key=lambda n: (
                float(np.linalg.norm(features[n] - query.feature.astype(np.float64))),
                (rows[n].source, rows[n].y, rows[n].x),
            ),
        )
        assert isinstance(answer, Answer)
        assert (answer.radius, answer.ball, answer.widened) == (used, len(ball), used > radius)
        assert [n.id for n in answer.neighbours] == [rows[n].id for n in ranked[:k]]


def test_failures_pass(archive: Snapshot) -> None:
    settings = SearchSettings(exclude_same="patient")
    given = [Failure("x", "x is gone."), Query("y", np.zeros(5), label="A")]
    failed = list(PrefixSearcher(archive, settings, 8).search_many(given))
    assert [type(one) for one in failed] == [Failure, Failure]


@pytest.mark.parametrize("bits", [0, 12, 32])
def test_bits_that_the_codes_do_not_have(archive: Snapshot, bits: int) -> None:
    with pytest.raises(UsageError, match=f"{bits} bits: give a multiple of 8 up to .* 24"):
        PrefixSearcher(archive, SearchSettings(), bits)
