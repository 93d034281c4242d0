"""Work is shared out: in order, by several threads, and errors come back."""

from __future__ import annotations

import threading

import pytest

from patchknn.hamming.threads import even_ranges, share_out


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


def test_even_ranges_are_consecutive():
    assert even_ranges(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert even_ranges(0, 1) == [(0, 0)]
