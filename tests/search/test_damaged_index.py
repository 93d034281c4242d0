"""Answers never hang on the index: without one, with half of one, and with a damaged one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from patchknn.archive.snapshot import open_archive
from patchknn.hamming.kernels import available, use
from patchknn.search.engine import Searcher
from patchknn.search.query import Query, stored_queries
from patchknn.search.settings import SearchSettings

SETTINGS = (
    SearchSettings(k=5, radius=2),
    SearchSettings(k=20, radius=1, exclude_same="patient", max_per=("slide", 4)),
)


def answers(path):
    """Of every setting, each query alone and all together; and what was found wrong meanwhile."""
    snapshot = open_archive(path)
    ids = [snapshot.row(row).id for row in range(0, snapshot.n_rows, 4999)]
    result = []
    for s in SETTINGS:
        searcher = Searcher(snapshot, s, threads=2)
        queries = stored_queries(snapshot, ids)
        queries = [q for q in queries if s.exclude_same != "patient" or q.patient is not None]
        queries.append(Query("new", np.ones(snapshot.settings.feature_dim), patient="P9"))
        together = list(searcher.search_many(queries))
        assert together == [searcher.search(query) for query in queries]
        result += together
    return result, snapshot.cover.problems


@pytest.fixture(scope="module")
def indexed(make_snapshot):
    shape = {"sizes": (30_000, 20_000), "bits": 32, "dim": 8, "spread": 9, "indexed": 2}
    return make_snapshot(np.random.default_rng(3), **shape).path


@pytest.fixture
def archive(indexed, tmp_path):
    return shutil.copytree(indexed, tmp_path / "archive")


@pytest.fixture(scope="module")
def expected(indexed, tmp_path_factory):
    bare = shutil.copytree(indexed, tmp_path_factory.mktemp("bare") / "archive")
    shutil.rmtree(bare / "index")
    found, problems = answers(bare)
    assert problems == ()
    return found


def segment_of(archive):
    (folder,) = (archive / "index" / "segments").iterdir()
    return folder


@pytest.mark.parametrize("kernels", available())
def test_with_an_index_and_without_one_answers_are_the_same(archive, expected, kernels):
    with use(kernels):
        assert answers(archive) == (expected, ())


@pytest.mark.parametrize("kernels", available())
@pytest.mark.parametrize("array", ["bounds", "rows", "part0_bounds", "part1_bounds", "part1_order"])
def test_numbers_out_of_range_are_noticed_and_searched_around(archive, expected, array, kernels):
    file = segment_of(archive) / f"{array}.bin"
    numbers = np.fromfile(file, "<u4")
    numbers[1:-1] = 0xFFFFFFFF  # its ends are looked at when it is opened
    file.write_bytes(numbers.tobytes())
    with use(kernels):
        found, problems = answers(archive)
    assert found == expected
    if not array.startswith("part"):  # of the parts, what was looked at was noticed
        assert len(problems) == 1
    if problems:
        assert segment_of(archive).name in problems[0]
        assert f"'patchknn archive index {archive} --rebuild'" in problems[0]


@pytest.mark.parametrize("array", ["codes", "bounds", "rows", "part1_order", "part1_window"])
def test_arrays_that_are_missing_or_short_are_noticed(archive, expected, array):
    file = segment_of(archive) / f"{array}.bin"
    file.write_bytes(file.read_bytes()[:-1])
    found, problems = answers(archive)
    assert found == expected
    assert len(problems) == 1
    file.unlink()
    found, problems = answers(archive)
    assert found == expected
    assert len(problems) == 1
