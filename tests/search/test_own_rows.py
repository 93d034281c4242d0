from collections.abc import Callable

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.search import own_rows
from patchknn.search.own_rows import OwnRows

Make = Callable[..., Snapshot]


def rows_of(snapshot: Snapshot, names: set[str]) -> list[int]:
    return [row for row in range(snapshot.n_rows) if snapshot.row(row).source in names]


def sources(snapshot: Snapshot, names: set[str]) -> dict[object, set[int]]:
    return {
        shard: {n for n in range(shard.n_sources) if shard.source_names[n] in names}
        for shard in snapshot.shards
    }


def test_rows_of_some_sources_in_several_shards(
    make_snapshot: Make, rng: np.random.Generator
) -> None:
    snapshot = make_snapshot(rng, sizes=(30, 20))
    names = {"s0-1", "s0-4", "s1-2"}
    some, none = OwnRows(snapshot.n_rows).of_each([sources(snapshot, names), {}])
    assert some is not None
    assert some.tolist() == rows_of(snapshot, names)
    assert none is not None
    assert none.tolist() == []


def test_rows_that_were_removed_are_not_among_them(
    make_snapshot: Make, rng: np.random.Generator
) -> None:
    snapshot = make_snapshot(rng, sizes=(30,))
    own = rows_of(snapshot, {"s0-1"})
    remove_rows(snapshot.path, Choice(ids=(snapshot.row(own[0]).id,)))
    left = open_archive(snapshot.path)
    (found,) = OwnRows(left.n_rows).of_each([sources(left, {"s0-1"})])
    assert found is not None
    assert found.tolist() == own[1:]


def test_many_rows_are_not_named(
    make_snapshot: Make, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_snapshot(rng, sizes=(30,))
    names = {"s0-1", "s0-2"}
    monkeypatch.setattr(own_rows, "FEW", len(rows_of(snapshot, names)) - 1)
    assert OwnRows(snapshot.n_rows).of_each([sources(snapshot, names)]) == [None]


def test_nothing_is_put_in_order_for_a_few_queries(
    make_snapshot: Make, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_snapshot(rng, sizes=(30,))
    monkeypatch.setattr(own_rows, "_ROWS_PER_QUERY", 10)
    own = OwnRows(snapshot.n_rows)
    asked = sources(snapshot, {"s0-1"})
    assert own.of_each([asked, asked]) == [None, None]
    (found,) = own.of_each([asked])
    assert found is not None
    assert found.tolist() == rows_of(snapshot, {"s0-1"})
