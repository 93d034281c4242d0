"""Work is shared out: in order, by as many threads as are of use, and errors come back."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from patchknn.hamming import feature_table, kernels, scan
from patchknn.hamming.feature_table import FeatureTable
from patchknn.hamming.scan import scan_rows
from patchknn.hamming.threads import clipped, even_ranges, share_out

_MANY = 10**12


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize("name", kernels.available())
@pytest.mark.parametrize("threads", [-1, 0, 5000, _MANY])
def test_features_are_ranked_by_any_number_of_threads(name, threads, rng, monkeypatch):
    monkeypatch.setattr(feature_table, "_WORTH_SHARING", 0)
    features = rng.normal(size=(500, 8)).astype(np.float32)
    offsets, starts, stops = np.arange(41), np.zeros(40, np.int64), np.full(40, 500)
    with kernels.use(name):
        table = FeatureTable([features])
        expected = table.nearest_many(features[:40], offsets, starts, stops, 3)
        found = table.nearest_many(features[:40], offsets, starts, stops, 3, threads=threads)
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)
        alone = table.nearest(features[7], starts[:1], stops[:1], 3, threads=threads)
    assert alone[0].tolist() == expected[1][expected[0][7] : expected[0][8]].tolist()
    assert threading.active_count() < 600


def test_codes_are_scanned_by_any_number_of_threads(rng, monkeypatch):
    monkeypatch.setattr(scan, "_WORTH_SHARING", 0)
    codes = rng.integers(0, 256, (700, 9), np.uint8)
    expected = scan_rows(codes, codes[:2], 20)
    for one, other in zip(scan_rows(codes, codes[:2], 20, threads=_MANY), expected, strict=True):
        assert np.array_equal(one, other)


def test_threads_are_clipped():
    assert [clipped(threads) for threads in (-3, 0, 1, 7)] == [1, 1, 1, 7]
    assert 64 <= clipped(_MANY) == clipped(5000) <= 4096
    assert even_ranges(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert len(even_ranges(10, _MANY)) == clipped(_MANY)
    assert even_ranges(0, 1) == [(0, 0)]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_results_are_in_the_order_of_the_tasks(threads, n):
    assert share_out(threads, lambda task: task * task, range(n)) == [i * i for i in range(n)]


def test_this_thread_and_others_work_at_once():
    meeting = threading.Barrier(3, timeout=20)

    def meet(_task):
        meeting.wait()
        return threading.get_ident()

    found = share_out(3, meet, range(3))
    assert len(set(found)) == 3
    assert threading.get_ident() in found


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_and_what_is_left_is_not_begun(threads):
    done = []

    def work(task):
        if task == 0:
            message = "no"
            raise KeyError(message)
        if threads > 1:
            threading.Event().wait(0.01)
        done.append(task)

    with pytest.raises(KeyError, match="no"):
        share_out(threads, work, range(1000))
    assert len(done) < 900


def test_an_error_of_another_thread_is_raised_here():
    here = threading.get_ident()
    begun = threading.Event()

    def work(_task):
        if threading.get_ident() == here:
            begun.wait(20)
            return
        begun.set()
        message = "elsewhere"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="elsewhere"):
        share_out(2, work, range(4))


def test_an_index_error_of_the_work_is_no_end():
    with pytest.raises(IndexError):
        share_out(2, lambda task: [][task], range(3))
