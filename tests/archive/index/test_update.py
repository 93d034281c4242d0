"""The index follows the archive: step by step, at once, and without disturbing readers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.index import layout, names, tidying
from patchknn.archive.index.after_publishing import try_update_index
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.sealed import sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.errors import DamageError

_HELPERS = Path(__file__).parents[1]


def _segments(path):
    return sorted(p for p in (path / "index" / "segments").iterdir() if p.name[0] != ".")


def _age(path, days=2.0):
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))


def test_shards_come_one_by_one_and_at_most_eight_segments_live(new_archive, grow, ids_of):
    path = new_archive(3)
    bundle = open_archive(path).bundle()
    update_index(path)
    sizes = np.random.default_rng(0).integers(1, 60, 18).tolist()
    for number, n in enumerate(sizes):
        grow(path, bundle, n, name=f"n{number}", seed=100 + number)
        report = update_index(path)
        snapshot = open_archive(path)
        cover = snapshot.cover
        assert len(cover.segments) == report.segments <= 8
        assert (cover.bare, cover.problems) == ((), ())
        assert (report.added, report.rows) == (n, snapshot.n_rows)
        ids = ids_of(snapshot)
        assert np.array_equal(snapshot.locate_many(ids), np.arange(len(ids)))
    assert verify_archive(path) == []
    again = update_index(path)
    assert (again.built, again.rows) == (0, snapshot.n_rows)
    whole = update_index(path, rebuild=True)
    assert (whole.segments, whole.built, whole.indexed) == (1, 1, snapshot.n_rows)
    assert verify_archive(path) == []


def test_an_empty_archive_has_nothing_to_index(empty):
    assert update_index(empty).built == 0
    assert update_index(empty, rebuild=True).built == 0
    assert open_archive(empty).cover.segments == ()


def test_an_older_snapshot_is_served_by_the_segments_of_its_time(new_archive, grow, ids_of):
    path = new_archive(20)
    update_index(path)
    grow(path, open_archive(path).bundle(), 30, name="late", seed=5)
    update_index(path)
    newest, older = open_archive(path), open_archive(path, at=1)
    assert [segment.n_rows for segment in newest.cover.segments] == [50]
    assert [segment.n_rows for segment in older.cover.segments] == [20]
    for segment in older.cover.segments:
        shutil.rmtree(segment.folder)
    alone = open_archive(path, at=1)
    assert alone.cover.segments == alone.cover.problems == ()
    assert len(alone.cover.bare) == 1
    for snapshot in (alone, older, newest):
        ids = ids_of(snapshot)
        assert np.array_equal(snapshot.locate_many(ids), np.arange(len(ids)))


def test_what_is_superseded_goes_after_a_day(new_archive, grow):
    path = new_archive(20)
    update_index(path)
    (first,) = _segments(path)
    _age(first)
    grow(path, open_archive(path).bundle(), 30, name="late", seed=5)
    assert update_index(path).removed == 0
    assert len(_segments(path)) == 2
    mark = first.with_name(f".superseded-{first.name}")
    assert mark.exists()
    assert verify_archive(path) == []
    assert update_index(path).removed == 0
    _age(mark)
    assert update_index(path).removed == 1
    assert first not in _segments(path)
    assert not mark.exists()
    assert len(_segments(path)) == 1


def test_a_segment_of_an_older_format_is_replaced(new_archive, ids_of, monkeypatch):
    path = new_archive(20, 30)
    with monkeypatch.context() as earlier:
        for module in (layout, names):
            earlier.setattr(module, "FORMAT_VERSION", names.FORMAT_VERSION - 1)
        update_index(path)
    (old,) = _segments(path)
    snapshot = open_archive(path)
    (problem,) = snapshot.cover.problems
    assert f"{old.name}/segment.json is of format 2, " in problem
    assert snapshot.cover.bare == tuple(snapshot.shards)
    ids = ids_of(snapshot)
    assert np.array_equal(snapshot.locate_many(ids), np.arange(len(ids)))
    report = update_index(path)
    assert (report.built, report.added, report.problems) == (1, 50, ())
    (segment,) = open_archive(path).cover.segments
    assert segment.folder != old
    assert open_archive(path).cover.problems == ()
    assert verify_archive(path) == []
    _age(old.with_name(f".superseded-{old.name}"))
    assert update_index(path).removed == 1
    assert _segments(path) == [segment.folder]


def test_a_segment_that_is_of_use_again_loses_its_mark(new_archive):
    path = new_archive(20)
    update_index(path)
    (only,) = _segments(path)
    mark = only.with_name(f".superseded-{only.name}")
    mark.touch()
    _age(mark)
    assert update_index(path).removed == 0
    assert not mark.exists()
    assert open_archive(path).cover.segments


def test_a_segment_that_another_user_owns_stays_and_is_in_nobodys_way(new_archive, grow):
    path = new_archive(20)
    update_index(path)
    (old,) = _segments(path)
    grow(path, open_archive(path).bundle(), 400, name="n", seed=1)
    update_index(path)
    mark = old.with_name(f".superseded-{old.name}")
    _age(mark)

    def refused(folder):
        raise PermissionError(1, "Operation not permitted", str(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tidying, "remove_whole", refused)
        report = update_index(path)
    assert (report.removed, report.problems, report.rows) == (0, (), 420)
    assert old.exists()
    assert verify_archive(path) == []
    assert update_index(path).removed == 1  # its owner may
    assert not old.exists()


def test_an_index_that_is_wrong_about_a_shard_is_built_anew(new_archive):
    path = new_archive(20, 30)
    update_index(path)
    (folder,) = _segments(path)
    lines = np.fromfile(folder / "shards.bin", layout.SHARD_LINE)
    lines["sources"] = lines["sources"] + [1, -1]
    data = lines.tobytes()
    (folder / "shards.bin").write_bytes(data)
    head = json.loads((folder / "segment.json").read_bytes())
    del head["checksum"]
    head["arrays"]["shards"]["checksum"] = hashlib.sha256(data).hexdigest()
    (folder / "segment.json").write_bytes(sealed_text(head))
    with pytest.raises(DamageError, match=r"'patchknn archive index .* --rebuild' mends it"):
        list(list_rows(open_archive(path)))
    assert update_index(path, rebuild=True).built == 1
    assert len(list(list_rows(open_archive(path)))) == 50
    assert verify_archive(path) == []


def test_what_killed_processes_leave_goes_after_a_day(indexed):
    folder = indexed / "index" / "segments"
    for name in (".tmp-old", ".tmp-young"):
        (folder / name).mkdir()
        (folder / name / "codes.bin").write_bytes(b"0")
    _age(folder / ".tmp-old")
    assert update_index(indexed).removed == 1
    assert (folder / ".tmp-young").exists()
    assert not (folder / ".tmp-old").exists()


def test_an_interrupted_build_leaves_nothing(new_archive, monkeypatch):
    from patchknn.archive.index import build

    path = new_archive(20)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_lookups", stop)
    with pytest.raises(KeyboardInterrupt):
        update_index(path)
    assert list((path / "index" / "segments").iterdir()) == []


def test_a_full_disk_leaves_nothing_and_is_said(new_archive, little_room):
    path = new_archive(5000)
    with little_room(20_000):
        with pytest.raises(OSError, match="index/segments"):
            update_index(path)
        sentence = try_update_index(path)
    assert sentence == (
        "The new rows are not indexed (File too large): searches are slower until "
        f"'patchknn archive index {path}' succeeds."
    )
    assert list((path / "index" / "segments").iterdir()) == []
    assert try_update_index(path) is None


def test_rows_that_are_damaged_are_not_indexed_and_that_is_said(new_archive):
    path = new_archive(20)
    (file,) = (path / "shards").glob("*.json")
    file.write_text(file.read_text() + " ")
    file.write_text(file.read_text().replace('"rows"', '"lows"'))
    sentence = try_update_index(path)
    assert sentence.startswith("The new rows are not indexed: ")
    assert f"'patchknn archive verify {path}'" in sentence
    assert "archive index" not in sentence


def test_a_damaged_segment_that_was_merged_is_no_longer_spoken_of(new_archive, grow, ids_of):
    path = new_archive(100)
    update_index(path)
    (first,) = _segments(path)
    grow(path, open_archive(path).bundle(), 30, name="late", seed=5)
    update_index(path)
    assert len(_segments(path)) == 2
    (first / "segment.json").write_text("{}")
    (problem,) = open_archive(path).cover.problems
    assert f"'patchknn archive index {path}'" in problem
    report = update_index(path)
    assert (report.segments, report.rows) == (1, 130)
    assert first in _segments(path)  # for a day
    snapshot = open_archive(path)
    assert snapshot.cover.problems == ()
    assert np.array_equal(snapshot.locate_many(ids_of(snapshot)), np.arange(130))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_archive_that_may_only_be_read(indexed, ids_of):
    folders = [indexed, *(folder for folder in indexed.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        snapshot = open_archive(indexed)
        assert np.array_equal(snapshot.locate_many(ids_of(snapshot)), np.arange(snapshot.n_rows))
        with pytest.raises(OSError, match="Permission denied"):
            update_index(indexed, rebuild=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_damaged_shard_is_named(new_archive):
    from patchknn.errors import DamageError

    path = new_archive(100, 100)
    shard = open_archive(path).shards[1]
    place = shard.description.arrays["codes"]
    file = path / "shards" / place.file
    data = bytearray(file.read_bytes())
    data[place.offset] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(DamageError, match="order of their codes") as error:
        update_index(path)
    assert str(file) in str(error.value)


_PROGRAM = """
import sys
sys.path.insert(0, {helpers!r})
from contextlib import contextmanager
from pathlib import Path
import conftest
from patchknn.archive.index import update
from patchknn.archive.listing import list_rows
from patchknn.archive.sealed import sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
number, locks = int(sys.argv[1]), sys.argv[2] == "locks"
if not locks:  # as on a file system that has none
    @contextmanager
    def everyone(path, *, wait):
        yield True
    update._locked = everyone
path = Path({path!r})
bundle = open_archive(path).bundle()
for round in range(3):
    with ArchiveWriter(path) as writer:
        own = f"w{{number}}-{{round}}"
        writer.add(conftest.build_rows(bundle, images=[own + ".png"], slides=[own + ".svs"]))
        writer.publish()
    update.update_index(path, wait=number % 2 == 0)
    snapshot = open_archive(path)
    assert snapshot.cover.problems == (), snapshot.cover.problems
    assert snapshot.locate(own + ".png") is not None
"""


@pytest.mark.parametrize("locks", ["locks", "none"])
def test_many_processes_publish_and_index_at_once(new_archive, ids_of, locks):
    path = new_archive(10)
    program = _PROGRAM.format(helpers=str(_HELPERS), path=str(path))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number), locks],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    outputs = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0] * 4, outputs
    update_index(path)
    snapshot = open_archive(path)
    assert snapshot.n_rows == 10 + 4 * 3 * 6
    assert (snapshot.cover.bare, snapshot.cover.problems) == ((), ())
    assert len(snapshot.cover.segments) <= 8
    ids = ids_of(snapshot)
    assert np.array_equal(snapshot.locate_many(ids), np.arange(len(ids)))
    assert verify_archive(path) == []
    assert not list(path.rglob(".tmp-*"))
