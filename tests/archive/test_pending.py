"""Shards of a writer before they are published."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.archive import pending as module
from patchknn.archive.pending import PendingShards
from patchknn.archive.settings import read_settings


@pytest.fixture
def shards(archive):
    return PendingShards(archive, read_settings(archive), container="hdf5", run_id=None)


@pytest.fixture
def rows(bundle, make_rows):
    """Two images and two slides of five patches."""
    return make_rows(bundle, images=["x.png", "y.png"], slides=["p.svs", "q.svs"])


def _names(shards):
    shards.rename()
    return [set(shard.source_names) for shard in shards.opened()]


def _full_at(monkeypatch, number):
    usual, calls = module.write_shard, []

    def write(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        return usual(*arguments, **options)

    monkeypatch.setattr(module, "write_shard", write)


def test_every_source_is_counted_once(shards, rows):
    shards.write(rows, 3)
    shards.write(rows, 2)
    assert len(shards) == 5
    assert sum(shard.entry.sources for shard in shards) == 4
    assert sum(shard.entry.rows for shard in shards) == 24


def test_one_shard_of_all_rows_is_written_without_a_copy(shards, rows, monkeypatch):
    def copied(*_):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(type(rows), "take", copied)
        shards.write(rows, 1)
    shards.rename()
    (shard,) = shards.opened()
    assert sorted(map(bytes, shard.features)) == sorted(map(bytes, rows.features))


def test_all_of_some_rows_are_written_or_none(shards, rows, archive, monkeypatch):
    shards.write(rows, 1)
    before = sorted(archive.rglob("*"))
    _full_at(monkeypatch, 3)
    with pytest.raises(OSError, match="No space"):
        shards.write(rows, 4)
    assert sorted(archive.rglob("*")) == before
    assert len(shards) == 1
    shards.write(rows, 4)
    assert sum(shard.entry.sources for shard in shards) == 4


@pytest.mark.parametrize("full_at", [0, 1, 2])
def test_sources_are_left_out_whatever_happens_meanwhile(shards, rows, monkeypatch, full_at):
    shards.write(rows, 4)
    taken = {"p.svs", "y.png"}
    _full_at(monkeypatch, full_at)
    if full_at:
        with pytest.raises(OSError, match="No space"):
            shards.leave_out(taken)
        assert set().union(*_names(shards)) >= {"x.png", "q.svs"}
    shards.leave_out(taken)
    assert set().union(*_names(shards)) == {"x.png", "q.svs"}
    assert shards.left_out == 6
    assert sum(shard.entry.sources for shard in shards) == 2
    assert sum(shard.entry.rows for shard in shards) == 6
    features = np.concatenate([shard.features for shard in shards.opened()])
    assert len(features) == 6


def test_what_is_removed_leaves_nothing(shards, rows, archive):
    before = sorted(archive.rglob("*"))
    shards.write(rows, 3)
    shards.rename()
    shards.remove()
    assert sorted(archive.rglob("*")) == before
    assert len(shards) == 0
