"""Of shards that an index has seen, a writer opens those that it needs and no others."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.index.update import update_index
from patchknn.archive.remove import remove_rows
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import open_archive, open_snapshot
from patchknn.archive.verify import verify_archive
from patchknn.errors import DamageError


def _unchecked(path):
    return open_snapshot(path, read_settings(path), check=False)


def test_what_an_index_has_seen_is_opened_when_it_is_used(archive):
    update_index(archive)
    snapshot = _unchecked(archive)
    assert (len(snapshot), snapshot.n_rows, len(snapshot.shards)) == (24, 24, 2)
    assert not snapshot.shards.opened
    assert snapshot.find_source("t1") is not None
    assert set(snapshot.shards.opened) == {snapshot.manifest.shards.uuid[1]}
    whole = open_archive(archive)
    assert len(whole.shards.opened) == 2
    assert [snapshot.row(row) for row in range(24)] == [whole.row(row) for row in range(24)]


def test_what_no_index_has_seen_is_looked_at_at_once(archive):
    shard = open_archive(archive).shards[1]
    (archive / "shards" / shard.description.arrays["codes"].file).unlink()
    with pytest.raises(DamageError, match=shard.uuid):
        _unchecked(archive)


def test_what_was_seen_and_is_gone_is_named_when_it_is_used(archive):
    update_index(archive)
    snapshot = _unchecked(archive)
    uuid = snapshot.manifest.shards.uuid[0]
    (archive / "shards" / f"{uuid}.json").unlink()
    assert _unchecked(archive).find_source("t1") is not None
    with pytest.raises(DamageError, match=uuid):
        _unchecked(archive).find_source("s1.svs")
    with pytest.raises(DamageError, match=uuid):
        open_archive(archive)


def test_shards_named_and_selected_keep_their_places(archive):
    update_index(archive)
    shards = _unchecked(archive).shards
    backwards = shards.select(np.array([1, 0]))
    assert [shard.first_row for shard in backwards] == [12, 0]
    assert backwards.first_rows.tolist() == [12, 0]
    assert backwards[0] is shards[1]
    assert backwards[-1] is shards[0]
    assert [shard.uuid for shard in shards[:1]] == [shards[0].uuid]
    with pytest.raises(IndexError):
        shards[2]
    snapshot = _unchecked(archive)
    uuids = snapshot.manifest.shards.uuid
    assert [shard.uuid for shard in snapshot.shards_named(uuids[::-1])] == uuids


def test_an_index_over_other_shards_too_vouches_for_those_that_are_left(archive):
    update_index(archive)
    remove_rows(archive, Choice(slides=["t1"]))
    # A manifest that names the second shard alone, as after a rollback.
    manifest = open_archive(archive, at=2).manifest
    newest = manifest._replace(
        number=4, shards=manifest.shards[1:], rows=12, sources=4, parent=None, totals=None
    )
    snapshot = open_snapshot(archive, read_settings(archive), manifest=newest, check=False)
    assert not snapshot.shards.opened
    assert snapshot.cover.segments == ()  # it has a shard that is not there
    assert snapshot.locate("d.png") is not None
    assert snapshot.locate("a.png") is None
    assert verify_archive(archive) == []
