"""The two-stage search against a literal brute force, and against the paper's own trees."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from sklearn.neighbors import BallTree

from patchknn.errors import InputError, UsageError
from patchknn.hamming.kernels import available, use
from patchknn.search import two_stage
from patchknn.search.answers import Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query, stored_query
from patchknn.search.settings import SearchSettings


def everything(snapshot):
    """Every row as a plain dictionary."""
    for shard in snapshot.shards:
        for local in range(shard.n):
            record = shard.source_record(int(shard.source[local]))
            x, y = shard.coords[local].tolist()
            label = int(shard.labels[local])
            yield {
                "row": shard.first_row + local,
                "feature": shard.features[local].astype(float).tolist(),
                "code": np.unpackbits(shard.codes[local]).tolist(),
                "label": None if label < 0 else snapshot.classes[label],
                "source": record.name,
                "patient": record.patient,
                "quickhash": record.quickhash,
                "x": x,
                "y": y,
            }


def l2(one, other):
    # The squares of small integers and of float16 differences are exact in this order too.
    return math.sqrt(np.sum([(a - b) ** 2 for a, b in zip(one, other, strict=True)]))


def eligible_rows(snapshot, query, s):
    feature = np.asarray(query.feature).astype(snapshot.settings.feature_dtype)
    code = np.unpackbits(snapshot.bundle().codes(feature[None])[0]).tolist()
    for row in everything(snapshot):
        own = row["source"] == query.source or row["quickhash"] == query.quickhash
        same = {
            "none": False,
            "self": own and (row["x"], row["y"]) == (query.x, query.y),
            "slide": own,
            "patient": own or row["patient"] == query.patient,
        }[s.exclude_same]
        if same or (s.labels is not None and row["label"] not in s.labels):
            continue
        if s.labelled_only and row["label"] is None:
            continue
        row["hamming"] = sum(a != b for a, b in zip(row["code"], code, strict=True))
        row["l2"] = l2(row["feature"], feature.astype(float).tolist())
        yield row


def ranked(rows, s):
    """All rows that the cap lets through, nearest first."""

    def group(row):
        if s.max_per[0] == "slide" or row["patient"] is None:
            return ("source", row["source"])
        return ("patient", row["patient"])

    taken, counts = [], Counter()
    for row in sorted(rows, key=lambda row: (row["l2"], row["source"], row["y"], row["x"])):
        if s.max_per is not None:
            counts[group(row)] += 1
            if counts[group(row)] > s.max_per[1]:
                continue
        taken.append(row)
    return taken


def brute_force(snapshot, query, s):
    """The search said literally: rows in rank order, ball size, radius."""
    eligible = list(eligible_rows(snapshot, query, s))
    bits = snapshot.settings.bits
    widest = max(s.radius, bits // 4) if s.max_radius is None else s.max_radius
    for radius in range(s.radius, widest + 1):
        ball = [row for row in eligible if row["hamming"] <= radius]
        if len(ranked(ball, s)) >= s.k or radius == widest:
            return ranked(ball, s)[: s.k], len(ball), radius
    raise AssertionError


def assert_same(answer, expected, s):
    rows, ball, radius = expected
    assert [n.row for n in answer.neighbours] == [row["row"] for row in rows]
    for name in ("hamming", "label", "source", "x", "y", "patient"):
        assert [getattr(n, name) for n in answer.neighbours] == [row[name] for row in rows]
    np.testing.assert_allclose([n.l2 for n in answer.neighbours], [row["l2"] for row in rows])
    assert (answer.ball, answer.radius, answer.widened) == (ball, radius, radius > s.radius)


@st.composite
def cases(draw):
    bits = draw(st.sampled_from([8, 16, 48, 72]))
    radius = draw(st.integers(0, bits))
    s = SearchSettings(
        k=draw(st.integers(1, 60)),
        radius=radius,
        max_radius=draw(st.none() | st.integers(radius, bits)),
        exclude_same=draw(st.sampled_from(["none", "self", "slide", "patient"])),
        labels=draw(st.none() | st.frozensets(st.sampled_from("abc"), min_size=1)),
        labelled_only=draw(st.booleans()),
        max_per=draw(
            st.none() | st.tuples(st.sampled_from(["slide", "patient"]), st.integers(1, 3))
        ),
    )
    shape = {
        "sizes": draw(st.lists(st.integers(1, 30), max_size=3)),
        "bits": bits,
        "dim": draw(st.integers(1, 9)),
        "dtype": draw(st.sampled_from(["float16", "float32"])),
        "spread": draw(st.integers(0, 3)),  # 0: all features, and so all codes, are equal
    }
    shape["indexed"] = draw(st.integers(0, len(shape["sizes"])))  # so many shards, of these
    shape["apart"] = draw(st.booleans())  # each in a segment of its own
    return s, shape, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(available()))


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(  # an indexed part and one that is not, each of which ranks its own nearest rows
    (
        SearchSettings(k=18, radius=4, exclude_same="none", max_per=("patient", 3)),
        {"sizes": [24, 19, 17], "bits": 8, "dim": 2, "dtype": "float16", "spread": 1, "indexed": 2},
        0,
        "numpy",
    )
)
@given(cases())
def test_the_search_equals_brute_force(make_snapshot, case):
    s, shape, seed, kernels = case
    rng = np.random.default_rng(seed)
    snapshot = make_snapshot(rng, **shape)
    with use(kernels):
        check_against_brute_force(snapshot, s, shape, rng)


def check_against_brute_force(snapshot, s, shape, rng):
    if s.labels is not None and not s.labels <= set(snapshot.classes):
        with pytest.raises(UsageError, match="has no such class"):
            Searcher(snapshot, s)
        return
    searcher = Searcher(snapshot, s)
    queries = [Query("q.png", rng.normal(size=shape["dim"]) * shape["spread"], patient="P1")]
    if snapshot.n_rows:
        stored = stored_query(snapshot, snapshot.row(int(rng.integers(snapshot.n_rows))).id)
        queries.append(stored)
    queries *= 2
    together = list(Searcher(snapshot, s, threads=2).search_many(queries))
    for most in (-1, 5):  # balls that many queries read one after the other
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(two_stage, "_MOST_AT_ONCE", most)
            assert list(Searcher(snapshot, s, threads=2).search_many(queries)) == together
    for query, answer in zip(queries, together, strict=True):
        if query.patient is None and s.exclude_same == "patient":
            with pytest.raises(InputError, match="no known patient"):
                searcher.search(query)
            assert isinstance(answer, Failure)
        else:
            assert_same(searcher.search(query), brute_force(snapshot, query, s), s)
            assert answer == searcher.search(query)
    assert snapshot.cover.problems == ()


@pytest.mark.parametrize("kernels", available())
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("exclude_same", ["none", "self", "slide"])
@pytest.mark.parametrize("max_radius", [2, None])
def test_several_segments_are_searched_at_once_as_brute_force_does(
    make_snapshot, rng, *, kernels, threads, exclude_same, max_radius
):
    shape = {"sizes": (90, 40, 70), "dim": 3, "bits": 16, "spread": 1}
    snapshot = make_snapshot(rng, **shape, indexed=3, apart=True)
    s = SearchSettings(k=7, radius=2, max_radius=max_radius, exclude_same=exclude_same)
    ids = [snapshot.row(row).id for row in range(0, len(snapshot), 3)]
    queries = [stored_query(snapshot, patch_id) for patch_id in ids]
    with use(kernels):
        searcher = Searcher(snapshot, s, threads=threads)
        assert searcher._two_stage.n_segments == 3
        together = list(searcher.search_many(queries))
        for query, answer in zip(queries, together, strict=True):
            assert_same(answer, brute_force(snapshot, query, s), s)
            assert answer == searcher.search(query)
    assert snapshot.cover.problems == ()


@pytest.mark.parametrize("kernels", available())
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("exclude_same", ["none", "slide"])
def test_features_alone_find_the_rows_of_the_whole_answer(
    make_snapshot, rng, kernels, dtype, exclude_same
):
    with use(kernels):
        shape = {"sizes": (300, 200), "dim": 16, "bits": 24, "spread": 2}
        snapshot = make_snapshot(rng, **shape, dtype=dtype, indexed=2)
        s = SearchSettings(radius=3, exclude_same=exclude_same)
        searcher = Searcher(snapshot, s)
        features = np.concatenate([shard.features[:60] for shard in snapshot.shards])
        codes = np.concatenate([shard.codes[:60] for shard in snapshot.shards])
        answers = [searcher.search(Query("q", feature)) for feature in features]
        rows = [[neighbour.row for neighbour in answer.neighbours] for answer in answers]
        many = searcher.find_many(features, codes)
        one_by_one = list(map(searcher.find, features, codes))
        for found in (many, one_by_one, searcher.find_many(features.astype(np.float64))):
            assert [one.rows.tolist() for one in found] == rows
            assert [one.ball for one in found] == [answer.ball for answer in answers]
        for feature in (np.full(16, np.nan, dtype), np.full(16, np.inf, dtype)):
            with pytest.raises(InputError, match="NaN or infinite"):
                searcher.find(feature, codes[0])
            with pytest.raises(InputError, match="NaN or infinite"):
                searcher.find_many(feature[None], codes[:1])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_search_equals_the_papers_ball_tree_and_kd_tree(make_snapshot, rng, dtype):
    snapshot = make_snapshot(rng, sizes=(300, 200), dim=16, bits=24, spread=9, dtype=dtype)
    codes = np.concatenate([shard.codes for shard in snapshot.shards])
    features = np.concatenate([shard.features for shard in snapshot.shards]).astype(np.float64)
    bits = np.unpackbits(codes, axis=1)
    ball_tree = BallTree(bits, metric="hamming")
    for radius in (2, 5):
        s = SearchSettings(radius=radius, max_radius=radius, exclude_same="none")
        searcher = Searcher(snapshot, s)
        for row in range(0, 500, 50):
            query = stored_query(snapshot, snapshot.row(row).id)
            answer = searcher.search(query)
            # The tree measures the share of differing bits; half a bit keeps the radius inclusive.
            (pool,) = ball_tree.query_radius(bits[row : row + 1], (radius + 0.5) / bits.shape[1])
            k = min(10, len(pool))
            distances, order = cKDTree(features[pool]).query(features[row], k=k)
            assert answer.ball == len(pool)
            np.testing.assert_allclose([n.l2 for n in answer.neighbours], np.atleast_1d(distances))
            if len(np.unique(distances)) == k:  # the tree breaks ties as it likes
                assert [n.row for n in answer.neighbours] == pool[np.atleast_1d(order)].tolist()


def test_a_stored_row_finds_itself_first_unless_left_out(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(20, 20), dim=12, spread=50)
    for row in range(snapshot.n_rows):
        query = stored_query(snapshot, snapshot.row(row).id)
        first = Searcher(snapshot, SearchSettings(exclude_same="none")).search(query).neighbours[0]
        assert (first.id, first.l2, first.hamming) == (query.name, 0.0, 0)
        others = Searcher(snapshot, SearchSettings(k=40)).search(query).neighbours
        assert query.name not in {neighbour.id for neighbour in others}


def test_the_same_file_under_another_name_is_the_query_itself(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(20, 20), dim=12, spread=50)
    query = stored_query(snapshot, snapshot.row(3).id)
    renamed = Query("copy", query.feature, "copy", "copy", None, query.quickhash, query.x, query.y)
    answer = Searcher(snapshot, SearchSettings(k=40, radius=16)).search(renamed)
    assert query.name not in {neighbour.id for neighbour in answer.neighbours}


def test_an_empty_archive_answers_with_nothing(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=())
    for coarse in ("hamming", "l2", "annoy"):
        searcher = Searcher(snapshot, SearchSettings(coarse=coarse))
        answer = searcher.search(Query("q", np.zeros(4)))
        assert (answer.neighbours, answer.prediction, answer.confidence) == ((), None, None)
        assert (answer.ball, answer.votes, answer.abstained) == (0, {}, True)


@pytest.mark.parametrize(
    ("feature", "sentence"),
    [
        ([np.nan, 0, 0, 0], "cannot be searched for: some of its features are NaN or infinite."),
        ([np.inf, 0, 0, 0], "cannot be searched for: some of its features are NaN or infinite."),
        (
            [1e6, 0, 0, 0],
            "cannot be searched for: some of its features are too large for float16",
        ),
        ([1.0, 2.0], "has features of shape (2,) and type float64"),
        (["a"] * 4, "has features of shape (4,) and type <U1"),
    ],
)
def test_features_that_cannot_be_searched_for_are_refused(make_snapshot, rng, feature, sentence):
    searcher = Searcher(make_snapshot(rng), SearchSettings())
    with pytest.raises(InputError) as caught:
        searcher.search(Query("q", np.array(feature)))
    assert str(caught.value).startswith(f"q {sentence}")


def test_one_bad_query_does_not_stop_the_others(make_snapshot, rng):
    searcher = Searcher(make_snapshot(rng), SearchSettings())
    queries = [
        Query("a", np.zeros(4)),
        Query("b", np.full(4, np.nan)),
        Failure("c", "c is lost."),
        Query("d", np.ones(4)),
    ]
    answers = list(searcher.search_many(iter(queries)))
    assert [answer.query for answer in answers] == ["a", "b", "c", "d"]
    assert [isinstance(answer, Failure) for answer in answers] == [False, True, True, False]


def test_the_classifier_is_asked_beside_the_vote(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(60,))
    answer = Searcher(snapshot, SearchSettings()).search(Query("q", np.ones(4)))
    (probabilities,) = snapshot.bundle().probabilities(np.ones((1, 4)))
    best = int(np.argmax(probabilities))
    assert answer.classifier.prediction == "abc"[best]
    assert answer.classifier.probability == pytest.approx(probabilities[best])
    assert answer.classifier.agrees == (answer.prediction == "abc"[best])


def test_few_or_divided_votes_are_marked_for_review(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(60,))
    query = Query("q", np.ones(4))
    answer = Searcher(snapshot, SearchSettings(radius=16)).search(query)
    votes = sum(answer.votes.values())
    assert not answer.abstained
    for s, abstained in [
        (SearchSettings(radius=16, min_neighbours=votes), False),
        (SearchSettings(radius=16, min_neighbours=min(votes + 1, 10)), votes < 10),
        (SearchSettings(radius=16, abstain_below=answer.confidence), False),
        (SearchSettings(radius=16, abstain_below=min(1, answer.confidence + 1e-9)), True),
    ]:
        assert Searcher(snapshot, s).search(query).abstained == abstained


def test_a_radius_beyond_the_bits_is_refused(make_snapshot, rng):
    with pytest.raises(UsageError, match=r"--radius 17 is more than .* bits \(16\)"):
        Searcher(make_snapshot(rng), SearchSettings(radius=17))


def test_zarr_and_hdf5_give_the_same_answers(make_snapshot):
    answers = []
    for container in ("zarr", "hdf5"):
        rng = np.random.default_rng(3)
        snapshot = make_snapshot(rng, sizes=(30, 30), container=container)
        searcher = Searcher(snapshot, SearchSettings())
        ids = sorted(snapshot.row(row).id for row in range(60))
        answers.append([searcher.search(stored_query(snapshot, i)).as_json() for i in ids])
    assert answers[0] == answers[1]


def test_the_query_is_rounded_as_the_archive_would_have_stored_it(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(12,), spread=0)  # every feature is 0, and so every bit
    answer = Searcher(snapshot, SearchSettings()).search(Query("q", np.full(4, 1e-9)))
    assert (answer.ball, answer.radius) == (12, 1)
    assert {(neighbour.hamming, neighbour.l2) for neighbour in answer.neighbours} == {(0, 0.0)}


@pytest.mark.parametrize("level", ["slide", "patient"])
def test_a_source_is_known_by_its_name_alone_and_each_level_holds_the_one_before(
    make_snapshot, rng, level
):
    snapshot = make_snapshot(rng, sizes=(60, 60))
    query = Query("q", np.ones(4), "s0-0@9_9", "s0-0", "P0")  # the archive knows no patient of it
    answer = Searcher(snapshot, SearchSettings(k=200, radius=16, exclude_same=level)).search(query)
    assert len(answer.neighbours) > 0
    assert "s0-0" not in {neighbour.source for neighbour in answer.neighbours}
    patients = {neighbour.patient for neighbour in answer.neighbours}
    assert ("P0" in patients) == (level == "slide")


@pytest.mark.parametrize("coarse", ["hamming", "l2"])
def test_numbers_beyond_all_rows_ask_for_all_of_them(make_snapshot, rng, coarse):
    snapshot = make_snapshot(rng, sizes=(9, 7))
    huge = 10**30
    s = SearchSettings(
        k=huge, max_radius=16, coarse=coarse, candidates=huge, max_per=("slide", huge)
    )
    answer = Searcher(snapshot, s).search(Query("q", np.ones(4)))
    assert len(answer.neighbours) == answer.ball == 16
