"""What many queries found is what each of them found."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.search.found import Found, FoundMany
from patchknn.search.work import Work


def several(random, n):
    for query in range(n):
        m = int(random.integers(0, 4))
        yield Found(
            random.integers(0, 100, m),
            np.sort(random.random(m)),
            None if query % 3 == 0 else query,
            m + query,
            widened=query % 2 == 1,
            work=Work(*random.integers(0, 9, len(Work._fields)).tolist()),
        )


def as_lists(found):
    return [(one.rows.tolist(), one.distances.tolist(), *one[2:]) for one in found]


@pytest.mark.parametrize("n", [0, 1, 7])
def test_what_was_put_together_comes_apart_again(rng, n):
    found = list(several(rng, n))
    many = FoundMany.of(found)
    assert len(many) == n
    assert as_lists(many) == as_lists(found)
    assert as_lists([many[-place - 1] for place in range(n)]) == as_lists(found)[::-1]
    for beyond in (n, -n - 1):
        with pytest.raises(IndexError):
            many[beyond]
    for one in many:
        assert type(one.ball) is int
        assert type(one.widened) is bool


def test_some_are_chosen(rng):
    found = list(several(rng, 9))
    keep = np.array([True, False, False, True, True, False, True, False, True])
    chosen = FoundMany.of(found).chosen(keep)
    assert as_lists(chosen) == as_lists(
        [one for one, kept in zip(found, keep, strict=True) if kept]
    )
    assert len(FoundMany.of(found).chosen(np.zeros(9, bool))) == 0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_what_was_found_among_other_rows_is_ranked_beside(rng, k):
    here, there = list(several(rng, 12)), list(several(rng, 12))
    there[3] = here[3]  # every distance twice
    beside = FoundMany.of(here).beside(FoundMany.of(there), k)
    for one, a, b in zip(beside, here, there, strict=True):
        pairs = sorted(
            (distance, row)
            for found in (a, b)
            for distance, row in zip(found.distances.tolist(), found.rows.tolist(), strict=True)
        )
        nearest = [pair for pair in pairs if len(pairs) <= k or pair[0] <= pairs[k - 1][0]]
        assert sorted(zip(one.distances.tolist(), one.rows.tolist(), strict=True)) == nearest
        assert (np.diff(one.distances) >= 0).all()
        assert one.ball == a.ball + b.ball
        assert one.work[1:] == tuple(x + y for x, y in zip(a.work[1:], b.work[1:], strict=True))
        assert one.work.path == b.work.path
