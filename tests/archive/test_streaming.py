"""Columns written block by block are what they are as a whole."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive import streaming
from patchknn.archive.streaming import Column, write_columns


@pytest.fixture(params=[64, 1 << 20])
def block_bytes(request, monkeypatch):
    """Blocks of a few rows in several threads, and one block for all."""
    monkeypatch.setattr(streaming, "_BLOCK_BYTES", request.param)
    monkeypatch.setattr(streaming, "_SYNC_BYTES", 3 * request.param)
    return request.param


def _columns():
    generator = np.random.default_rng(0)
    order = generator.permutation(500)
    return {
        "features": Column(generator.normal(size=(500, 7)).astype("<f2"), order),
        "codes": Column(generator.integers(0, 256, (500, 3)).astype("|u1"), order[:100]),
        "wide": Column(generator.normal(size=(4, 1000))),  # a row is longer than a block
        "text": Column(np.frombuffer(b"a text and its end\0", np.uint8)),
        "again": Column(np.arange(50), np.array([3, 3, 3, 49, 0])),
    }


def _wholes(columns):
    return {
        name: column.values if column.order is None else column.values[column.order]
        for name, column in columns.items()
    }


def test_a_column_has_the_shape_of_what_is_gathered():
    for name, whole in _wholes(_columns()).items():
        column = _columns()[name]
        assert (column.shape, column.dtype, column.nbytes) == (
            *(whole.shape, whole.dtype),
            whole.nbytes,
        )
        assert np.array_equal(column.rows(1, 3), whole[1:3])


@pytest.mark.usefixtures("block_bytes")
def test_a_file_for_each_column(tmp_path):
    columns = _columns()
    checksums = write_columns(tmp_path, columns, {name: (name, 0) for name in columns})
    for name, whole in _wholes(columns).items():
        assert (tmp_path / name).read_bytes() == whole.tobytes()
        assert checksums[name] == hashlib.sha256(whole.tobytes()).hexdigest()


@pytest.mark.usefixtures("block_bytes")
def test_one_file_for_all_keeps_what_lies_between(tmp_path):
    file, columns = tmp_path / "all", _columns()
    before = bytearray(b"-" * 100_000)
    file.write_bytes(before)
    places, end = {}, 17
    for name, column in columns.items():
        places[name] = ("", end)
        end += column.nbytes + 5
    write_columns(file, columns, places)
    for name, whole in _wholes(columns).items():
        start = places[name][1]
        before[start : start + whole.nbytes] = whole.tobytes()
    assert file.read_bytes() == before


@pytest.mark.usefixtures("block_bytes")
def test_what_the_disk_refuses_is_raised_and_nothing_stays_open(tmp_path, monkeypatch):
    columns, calls = _columns(), []

    def full(*_):
        calls.append(1)
        raise OSError(28, "No space left on device")

    opened = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(streaming.os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            write_columns(tmp_path, columns, {name: (name, 0) for name in columns})
    assert calls
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_a_write_that_takes_a_part_is_gone_on_with(tmp_path, monkeypatch, block_bytes):
    usual, columns = os.pwrite, _columns()

    def some(file, data, offset):
        return usual(file, data[: max(len(data) // 2, 1)], offset)

    monkeypatch.setattr(streaming.os, "pwrite", some)
    write_columns(tmp_path, columns, {name: (name, 0) for name in columns})
    for name, whole in _wholes(columns).items():
        assert (tmp_path / name).read_bytes() == whole.tobytes()


def test_errors_of_a_sync_in_between_are_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(streaming, "_SYNC_BYTES", 128)

    def broken(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(streaming, "_sync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_columns(tmp_path, _columns(), {name: (name, 0) for name in _columns()})


def test_threads_that_signals_leave_alone_write_into_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_BLOCK_BYTES", 64)
    usual, arrived = os.pwrite, []

    def slow(file, data, offset):
        time.sleep(0.03)
        return usual(file, data, offset)

    def stop(*_):
        arrived.append(1)
        if len(arrived) == 2:  # the second meets who waits for the threads
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming.os, "pwrite", slow)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.01)
        with pytest.raises(KeyboardInterrupt):
            write_columns(tmp_path, _columns(), {name: (name, 0) for name in _columns()})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    others = [(tmp_path / f"other {number}").open("wb", buffering=0) for number in range(8)]
    time.sleep(0.5)
    assert len(arrived) == 2
    assert [os.fstat(other.fileno()).st_size for other in others] == [0] * 8
    for other in others:
        other.close()
