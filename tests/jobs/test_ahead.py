"""Threads that work ahead: in order, and by no more than they may."""

from __future__ import annotations

import threading
import time

import pytest

from patchknn.jobs.ahead import made_ahead


@pytest.mark.parametrize(("threads", "waiting"), [(0, 0), (1, 0), (1, 3), (4, 2), (4, 100)])
def test_all_is_made_in_order(threads, waiting):
    def make(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(made_ahead(make, range(20), threads, waiting)) == [n**2 for n in range(20)]


@pytest.mark.parametrize(("threads", "waiting"), [(1, 1), (2, 3)])
def test_it_is_ahead_by_so_many_and_no_more(threads, waiting):
    drawn = []
    items = (drawn.append(number) or number for number in range(100))
    made = made_ahead(lambda number: number, items, threads, waiting)
    assert drawn == []
    for number in range(20):
        assert next(made) == number
        assert len(drawn) == number + 1 + waiting
    made.close()
    assert len(drawn) == 20 + waiting


def test_without_threads_it_is_made_when_it_is_asked_for():
    makers = []
    made = made_ahead(lambda _: makers.append(threading.current_thread()), range(5), 0, 0)
    next(made)
    assert makers == [threading.main_thread()]


def test_what_goes_wrong_is_raised_in_its_turn_and_ends_it():
    begun = []

    def make(number):
        begun.append(number)
        if number == 2:
            raise KeyError(number)
        time.sleep(0.01)
        return number

    found = []
    with pytest.raises(KeyError):
        found.extend(made_ahead(make, range(1000), 2, 4))
    assert found == [0, 1]
    assert len(begun) < 20
    threads = [t for t in threading.enumerate() if t is not threading.main_thread()]
    assert not [t for t in threads if t.name.startswith("ThreadPoolExecutor")]


def test_what_waits_when_it_is_closed_is_not_begun():
    begun, release = [], threading.Event()

    def make(number):
        begun.append(number)
        if number:
            release.wait(10)
        return number

    made = made_ahead(make, range(100), 1, 20)
    assert next(made) == 0
    threading.Timer(0.05, release.set).start()
    made.close()
    assert len(begun) <= 3
