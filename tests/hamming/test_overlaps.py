"""What queries share, against sets of positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming.overlaps import Ranges, part_shared, shares


def covered(starts, stops):
    found = [p for a, b in zip(starts.tolist(), stops.tolist(), strict=True) for p in range(a, b)]
    assert len(found) == len(set(found))
    return set(found)


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=8), max_size=7),
    st.integers(1, 4),
    st.integers(1, 20),
)
def test_every_row_of_every_query_is_shared_or_left_and_never_both(edges, least, products):
    bounds = [sorted(of_query)[: len(of_query) // 2 * 2] for of_query in edges]
    pairs = [[of[i : i + 2] for i in range(0, len(of), 2)] for of in bounds]
    flat = np.array([pair for of in pairs for pair in of], np.int64).reshape(-1, 2)
    ranges = Ranges(np.cumsum([0] + [len(of) for of in pairs]), flat[:, 0], flat[:, 1])
    shared, rest = part_shared(ranges, least, products)
    pieces = [
        covered(shared.starts[i : i + 1], shared.stops[i : i + 1])
        for i in range(len(shared.starts))
    ]
    owners = [
        shared.queries[a:b].tolist()
        for a, b in zip(shared.offsets, shared.offsets[1:], strict=False)
    ]
    for piece, own in zip(pieces, owners, strict=True):
        assert len(set(own)) == len(own) >= least
        assert len(own) * len(piece) >= products
    for query in range(len(pairs)):
        own = ranges.of(slice(query, query + 1))
        left = rest.of(slice(query, query + 1))
        alone = covered(left.starts, left.stops)
        together = [piece for piece, of in zip(pieces, owners, strict=True) if query in of]
        assert sum(map(len, together)) + len(alone) == len(covered(own.starts, own.stops))
        assert set().union(alone, *together) == covered(own.starts, own.stops)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 6))
def test_spans_of_queries_are_consecutive_and_complete(rows, parts):
    spans = shares(np.append(0, np.cumsum(rows)), parts)
    assert len(spans) <= parts
    assert [query for low, high in spans for query in range(low, high)] == list(range(len(rows)))
