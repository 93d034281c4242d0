"""A search in shares answers as one search of the whole does, which brute force is set against."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from patchknn.archive.choice import Choice
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.records_attach import attach_records
from patchknn.archive.relabel import Correction, relabel_choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.errors import ConflictError, InputError, UsageError
from patchknn.hamming.kernels import available, use
from patchknn.search.answers import Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query, stored_query
from patchknn.search.settings import SearchSettings
from patchknn.search.share_search import Asked, RankTask, ReachTask, rank_share, reach_share
from patchknn.search.shares import open_share, shares_of
from patchknn.search.spread import Spreading, SpreadSearcher

WHOLE = {"dim": 4, "bits": 16, "spread": 1}


def whole_and_shares(snapshot, s, queries, spreading):
    """What one search answers, and what shares answer together."""
    whole = list(Searcher(snapshot, s).search_many(queries))
    spread = list(SpreadSearcher(snapshot, s, spreading).search_many(iter(queries)))
    return whole, spread


def assert_alike(snapshot, s, queries, spreading):
    whole, spread = whole_and_shares(snapshot, s, queries, spreading)
    assert spread == whole
    # Not only equal values, but such as are written alike.
    assert [json.dumps(a.as_json()) for a in spread] == [json.dumps(a.as_json()) for a in whole]
    return whole


def some_queries(snapshot, rng, dim, spread, n=4):
    """Stored rows, other features on the same grid, and what cannot be searched for."""
    queries = [
        Query(f"q{number}", rng.integers(-spread, spread + 1, dim).astype(float), patient="P1")
        for number in range(n)
    ]
    ids = [row.id for row in list_rows(snapshot)]
    queries += [stored_query(snapshot, one) for one in rng.permutation(ids)[:n].tolist()]
    queries.insert(1, Query("bad", np.full(dim, np.nan), patient="P1"))
    queries.insert(3, Failure("lost", "lost is gone."))
    queries.append(Query("strange", rng.normal(size=dim)))  # of no known patient
    return queries


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Folders to change archives in."""
    folder, numbers = tmp_path_factory.mktemp("changed"), itertools.count()
    return lambda path: shutil.copytree(path, folder / str(next(numbers)))


def changed(path, rng, removed):
    """The archive with a share of its rows removed, and others relabelled."""
    ids = sorted(row.id for row in list_rows(open_archive(path)))
    gone = rng.choice(ids, int(removed * len(ids)), replace=False).tolist()
    if gone:
        remove_rows(path, Choice(ids=gone))
    left = sorted(set(ids) - set(gone))
    if left:
        relabel_choice(path, Choice(ids=left[::3]), Correction("a"))
    return open_archive(path)


@st.composite
def cases(draw):
    bits = draw(st.sampled_from([8, 16, 48]))
    radius = draw(st.integers(0, bits // 2))
    s = SearchSettings(
        k=draw(st.integers(1, 60)),
        radius=radius,
        max_radius=draw(st.none() | st.just(radius) | st.integers(radius, bits)),
        exclude_same=draw(st.sampled_from(["none", "self", "slide", "patient"])),
        labels=draw(st.none() | st.frozensets(st.sampled_from("abc"), min_size=1)),
        labelled_only=draw(st.booleans()),
        max_per=draw(
            st.none() | st.tuples(st.sampled_from(["slide", "patient"]), st.integers(1, 3))
        ),
    )
    shape = {
        "sizes": draw(st.lists(st.integers(1, 25), max_size=5)),
        "bits": bits,
        "dim": draw(st.integers(1, 5)),
        "spread": draw(st.integers(0, 2)),  # 0: all features, and so all codes, are equal
        "apart": draw(st.booleans()),
    }
    shape["indexed"] = draw(st.integers(0, len(shape["sizes"])))
    removed = draw(st.sampled_from([None, 0, 0.3, 0.9]))
    spread = {
        "shares": draw(st.integers(1, 7)),
        "threads": draw(st.integers(1, 2)),
        "block": draw(st.integers(1, 9)),
        "blocks": draw(st.integers(1, 3)),
    }
    seed, kernels = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(available()))
    return s, shape, removed, spread, seed, kernels


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(  # of each patient each share holds rows, and more than the answer may have
    (
        SearchSettings(k=7, radius=1, exclude_same="none", max_per=("patient", 2)),
        {"sizes": [20, 20, 20], "bits": 16, "dim": 3, "spread": 1, "apart": True, "indexed": 2},
        0.3,
        {"shares": 3},
        1,
        "numpy",
    )
)
@given(cases())
def test_shares_answer_as_the_whole_does(make_snapshot, copies, case):
    s, shape, removed, spread, seed, kernels = case
    rng = np.random.default_rng(seed)
    snapshot = make_snapshot(rng, **shape)
    if removed is not None:
        snapshot = changed(copies(snapshot.path), rng, removed)
    with use(kernels):
        if s.labels is not None and not s.labels <= set(snapshot.classes):
            with pytest.raises(UsageError, match="has no such class"):
                SpreadSearcher(snapshot, s, Spreading(map, 2))
            return
        queries = some_queries(snapshot, rng, shape["dim"], shape["spread"])
        assert_alike(snapshot, s, queries, Spreading(map, **spread))


@pytest.mark.parametrize("kernels", available())
@pytest.mark.parametrize("indexed", [0, 4, 6])
@pytest.mark.parametrize(
    "s",
    [
        SearchSettings(k=5, radius=0),
        SearchSettings(k=25, radius=1),
        SearchSettings(k=25, radius=2, max_radius=2),
        SearchSettings(k=200, radius=1, max_radius=16, exclude_same="none"),
        SearchSettings(k=9, radius=1, exclude_same="patient", max_per=("slide", 2)),
        SearchSettings(k=9, radius=0, labelled_only=True, max_per=("patient", 3)),
    ],
)
def test_shares_of_larger_archives_answer_so_too(make_snapshot, s, indexed, kernels):
    rng = np.random.default_rng(5)
    sizes = (150, 90, 200, 10, 60, 120)
    snapshot = make_snapshot(rng, sizes=sizes, **WHOLE, indexed=indexed, apart=True)
    queries = some_queries(snapshot, rng, 4, 1, n=10)
    with use(kernels):
        answers = assert_alike(snapshot, s, queries, Spreading(map, 3, block=8))
    found = [a for a in answers if not isinstance(a, Failure)]
    if s.k == 25:  # as this is about both
        assert {answer.widened for answer in found} == {s.max_radius is None, False}


def test_records_filter_in_each_share(make_snapshot, copies, tmp_path):
    rng = np.random.default_rng(2)
    path = copies(make_snapshot(rng, sizes=(30, 30, 20), **WHOLE, indexed=2, apart=True).path)
    names = sorted({source.name for source in open_archive(path).sources()})
    table = tmp_path / "slides.csv"
    organs = (f"{name},{('colon', 'liver', '')[at % 3]}" for at, name in enumerate(names))
    table.write_text("\n".join(["slide,organ", *organs]))
    attach_records(path, table, "slide")
    remove_rows(path, Choice(slides=names[:1]))
    snapshot = open_archive(path)
    queries = some_queries(snapshot, rng, 4, 1)
    for where in ("organ = 'colon'", "organ IS NULL"):
        for limits in ({}, {"max_per": ("patient", 4)}):
            s = SearchSettings(k=12, where=where, **limits)
            for shares in (1, 2, 7):
                answers = assert_alike(snapshot, s, queries, Spreading(map, shares))
            assert any(answer.neighbours for answer in answers if not isinstance(answer, Failure))
    with pytest.raises(UsageError, match="there is no field 'nonsense'"):
        SpreadSearcher(snapshot, SearchSettings(where="nonsense = 1"), Spreading(map, 2))


def test_other_processes_answer_as_this_one_does(make_snapshot):
    rng = np.random.default_rng(4)
    snapshot = make_snapshot(rng, sizes=(80, 70, 60, 50), **WHOLE, indexed=3, apart=True)
    queries = some_queries(snapshot, rng, 4, 1, n=30)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        for s in (SearchSettings(k=30), SearchSettings(k=9, max_per=("patient", 2))):
            assert_alike(snapshot, s, queries, Spreading(pool.map, 3, block=16, blocks=2))
        missing = SpreadSearcher(snapshot, SearchSettings(), Spreading(pool.map, 2))
        missing._asked = [
            asked._replace(share=asked.share._replace(number=99)) for asked in missing._asked
        ]
        with pytest.raises(InputError, match="has no snapshot 99"):
            list(missing.search_many(queries))


def test_a_task_has_the_same_result_again(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(40, 30), **WHOLE, indexed=1)
    s = SearchSettings(k=9, max_per=("patient", 2))
    queries = [stored_query(snapshot, snapshot.row(row).id) for row in range(6)]
    for share in shares_of(snapshot, 2):
        asked = Asked(share, s, 1, explain=False)
        for function, task in (
            (rank_share, RankTask(asked, queries, np.arange(6))),
            (reach_share, ReachTask(asked, queries)),
        ):
            sent = pickle.loads(pickle.dumps(task))
            results = [pickle.dumps(function(one)) for one in (sent, task, sent)]
            assert len(set(results)) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("indexed", [0, 5, 9])
def test_shares_hold_every_shard_once_and_segments_whole(make_snapshot, rng, count, indexed):
    sizes = (30, 5, 17, 60, 2, 9, 9, 41, 12)
    snapshot = make_snapshot(rng, sizes=sizes, indexed=indexed, apart=indexed == 5)
    shares = shares_of(snapshot, count)
    assert shares == shares_of(open_archive(snapshot.path), count)
    opened = [open_share(share) for share in shares]
    uuids = [shard.uuid for one in opened for shard in one.searched]
    assert sorted(uuids) == sorted(shard.uuid for shard in snapshot.shards)
    segments = [segment for one in opened for segment in one.cover.segments]
    assert {segment.folder for segment in segments} == {
        segment.folder for segment in snapshot.cover.segments
    }
    units = [segment.n_rows for segment in segments] + [s.n for s in snapshot.cover.bare]
    assert len(shares) == min(count, len(units))
    rows = [int(one.searched.lengths.sum()) for one in opened]
    assert max(rows) - min(rows) <= max(units)


def test_rows_of_a_share_keep_their_numbers_and_others_are_not_looked_up(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(20, 10, 15, 8), indexed=2, apart=True)
    rows = [snapshot.row(row) for row in range(snapshot.n_rows)]
    share = snapshot.share(np.array([1, 3]))
    own = {*range(20, 30), *range(45, 53)}
    for row in rows:
        assert share.locate(row.id) == (row.row if row.row in own else None)
        assert share.row(row.row) == row
    names = sorted({row.source for row in rows})
    for places in (share.sources_named(names), share.sources_of_patients(["P0", "P1"])):
        assert {shard.first_row for _, shard, _ in places} == {20, 45}


def test_the_index_may_change_while_shares_are_searched(make_snapshot, copies):
    rng = np.random.default_rng(6)
    made = make_snapshot(rng, sizes=(60, 50, 40, 30), **WHOLE, indexed=4, apart=True)
    queries = some_queries(made, rng, 4, 1, n=20)
    s = SearchSettings(k=20)
    expected = list(Searcher(made, s).search_many(queries))
    for change in (
        lambda path: shutil.rmtree(path / "index"),
        lambda path: update_index(path, rebuild=True),  # one segment across all shares
    ):
        path = copies(made.path)
        spread = SpreadSearcher(open_archive(path), s, Spreading(map, 3))
        change(path)
        assert list(spread.search_many(queries)) == expected
        assert spread.problems == ()


@pytest.mark.parametrize("array", ["bounds", "rows", "codes"])
@pytest.mark.parametrize("kernels", available())
def test_a_damaged_segment_is_passed_over_and_named(
    make_snapshot, copies, monkeypatch, array, kernels
):
    rng = np.random.default_rng(9)
    made = make_snapshot(rng, sizes=(300, 200, 100), **WHOLE, indexed=2)
    queries = some_queries(made, rng, 4, 1, n=10)
    path = copies(made.path)
    (segment,) = (path / "index" / "segments").iterdir()
    numbers = np.fromfile(segment / f"{array}.bin", "<u4")
    numbers[1:-1] = 0xFFFFFFFF
    whole = numbers.tobytes()
    (segment / f"{array}.bin").write_bytes(whole[:-1] if array == "codes" else whole)
    monkeypatch.chdir(path.parent)
    given_path = Path(path.name)  # sentences name the archive as the user did
    for s in (SearchSettings(k=20), SearchSettings(k=20, max_per=("slide", 2))):
        with use(kernels):
            expected = list(Searcher(made, s).search_many(queries))
            alone = Searcher(open_archive(given_path), s)
            assert list(alone.search_many(queries)) == expected
            spread = SpreadSearcher(open_archive(given_path), s, Spreading(map, 2))
            assert list(spread.search_many(queries)) == expected
        # What is wrong with it hangs on what is read of it first.
        (problem,), (own,) = spread.problems, alone.problems
        assert problem.partition(": ")[0] == own.partition(": ")[0]
        assert problem.rpartition("; ")[2] == own.rpartition("; ")[2]
        assert segment.name in problem


def test_a_share_of_what_cannot_be_seen_is_refused(make_snapshot, copies, rng):
    snapshot = open_archive(copies(make_snapshot(rng, sizes=(20, 20)).path))
    (share,) = shares_of(snapshot, 1)
    queries = [stored_query(snapshot, snapshot.row(0).id)]
    for other, error, sentence in (
        (share._replace(number=7), InputError, r"cannot search its share .* no snapshot 7.*path\."),
        (share._replace(nonce="0" * 32), ConflictError, "sees another snapshot"),
        (share._replace(archive_id="other"), ConflictError, "sees another snapshot"),
        (share._replace(archive=Path("/gone")), InputError, "/gone does not exist.*every machine"),
    ):
        asked = Asked(other, SearchSettings(), 1, explain=False)
        for function, task in (
            (rank_share, RankTask(asked, queries, np.ones(1, np.int64))),
            (reach_share, ReachTask(asked, queries)),
        ):
            with pytest.raises(error, match=f"(?i){sentence}") as caught:
                function(task)
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_needs_all_rows_in_memory_is_refused(make_snapshot, rng):
    for coarse in ("l2", "annoy"):
        with pytest.raises(UsageError, match=f"--coarse {coarse} .* on one machine"):
            SpreadSearcher(make_snapshot(rng), SearchSettings(coarse=coarse), Spreading(map, 2))
    with pytest.raises(UsageError, match="--radius 17 is more than"):
        SpreadSearcher(make_snapshot(rng), SearchSettings(radius=17), Spreading(map, 2))


def test_explained_answers_sum_up_what_the_shares_did(make_snapshot):
    rng = np.random.default_rng(3)
    snapshot = make_snapshot(rng, sizes=(60, 50, 40, 30), **WHOLE, indexed=2, apart=True)
    queries = [stored_query(snapshot, snapshot.row(row).id) for row in range(0, 180, 9)]
    s = SearchSettings(k=4, radius=3, max_radius=3)
    whole = [answer.explain for answer in Searcher(snapshot, s, explain=True).search_many(queries)]
    spread = SpreadSearcher(snapshot, s, Spreading(map, 3), explain=True)
    answers = list(spread.search_many(queries))
    for one, other in zip(answers, whole, strict=True):
        for name in ("kernels", "segments", "shards_without_index", "codes_scanned"):
            assert one.explain[name] == other[name]
        assert one.explain["rows_read"] >= min(4, one.ball)
