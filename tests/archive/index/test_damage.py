"""A damaged index is noticed or searched around; it never crashes, and never invents rows."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from patchknn.archive.index.names import segments_folder
from patchknn.archive.index.update import update_index
from patchknn.archive.index.verify import index_findings
from patchknn.archive.sealed import sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.errors import DamageError
from patchknn.hamming.kernels import available, use
from patchknn.hamming.packing import unpack_bits, words

_RADIUS, _K = 14, 5
# What these hold are numbers of something: one that is too large is noticed where it is used.
_NUMBERS = ("bounds", "rows", "order", "entries")


def _folder(path):
    (segment,) = (p for p in segments_folder(path).iterdir() if p.name[0] != ".")
    return segment


def _findings(path):
    return list(index_findings(path, lambda _: None))


def _brute(snapshot):
    codes = np.concatenate([np.array(shard.codes) for shard in snapshot.shards])
    features = np.concatenate([np.array(shard.features) for shard in snapshot.shards])
    return unpack_bits(codes), words(codes), features.astype(np.float64)


def _expected(everything, row):
    bits, _, features = everything
    ball = np.flatnonzero((bits ^ bits[row]).sum(axis=1) <= _RADIUS)
    distances = np.sqrt(((features[ball] - features[row]) ** 2).sum(axis=1))
    return len(ball), np.sort(distances)[:_K]


def _found(segment, everything, row):
    """The size of the ball and the nearest of it; ValueError where damage is noticed."""
    _, codes, features = everything
    hits = segment.table.ball(codes[row][None], _RADIUS)
    bounds = segment.code_arrays.bounds
    starts = bounds[hits.codes].astype(np.int64)
    stops = bounds[hits.codes.astype(np.int64) + 1].astype(np.int64)
    positions, distances, *_ = segment.features.nearest(features[row], starts, stops, _K)
    segment.snapshot_rows(segment.segment_rows(positions))
    return int((stops - starts).sum()), np.sort(distances)[:_K]


def _same(found, expected):
    return found[0] == expected[0] and np.allclose(found[1], expected[1])


def _use_all(path, everything, ids, rows):
    """Whether all that a search does is right, or damage noticed; False where it is wrong."""
    snapshot = open_archive(path)
    assert np.array_equal(snapshot.locate_many([ids[row] for row in rows]), rows)
    names = [ids[row].split("@")[0] for row in rows]
    assert {number for number, _, _ in snapshot.sources_named(names)} == set(range(len(names)))
    assert snapshot.sources_of_patients(["everyone's"])
    assert snapshot.sources_by_quickhash([b"s0.svs".ljust(16, b"-")])
    right = True
    for segment in snapshot.cover.segments:
        for row in rows:
            try:
                found = _found(segment, everything, row)
            except ValueError as error:
                assert snapshot.pass_over(segment, error).problems  # noqa: PT017
                assert segment not in snapshot.cover.segments
                break
            right &= _same(found, _expected(everything, row))
    return right


@pytest.fixture(params=available())
def kernels(request):
    with use(request.param):
        yield request.param


def test_values_out_of_range_in_200_places(indexed, ids_of, kernels):
    snapshot = open_archive(indexed)
    everything, ids = _brute(snapshot), ids_of(snapshot)
    del snapshot
    generator = np.random.default_rng(0)
    folder = _folder(indexed)
    files = sorted(file for file in folder.iterdir() if file.stat().st_size)
    noticed = 0
    for _ in range(200):
        file = files[generator.integers(len(files))]
        whole = file.read_bytes()
        width = 8 if file.stem.endswith(("codes", "window", "sizes")) else 4
        place = int(generator.integers(len(whole) // width)) * width
        value = [b"\xff" * width, generator.bytes(width)][generator.integers(2)]
        if whole[place : place + width] == value:
            continue
        file.write_bytes(whole[:place] + value + whole[place + width :])
        assert _findings(indexed), file
        rows = generator.integers(0, len(ids), 4)
        right = _use_all(indexed, everything, ids, rows)
        out_of_range = int.from_bytes(value, "little") > len(ids)
        if file.stem.endswith(_NUMBERS) and out_of_range:
            assert right, (file, place)
            noticed += 1
        file.write_bytes(whole)
    assert noticed > 50
    assert _findings(indexed) == []


def _ask_much(segment, everything):
    for row in range(0, 4500, 300):
        assert _same(_found(segment, everything, row), _expected(everything, row))
        for radius, path in ((3, "probe"), (3, "multi-index"), (20, "multi-index")):
            segment.table.ball(everything[1][row][None], radius, path=path)


def test_numbers_all_out_of_range_are_noticed_in_use(indexed, ids_of, kernels):
    """Written everywhere, they cannot be missed."""
    everything = _brute(open_archive(indexed))
    folder = _folder(indexed)
    for file in sorted(folder.glob("*.bin")):
        name = file.stem
        if not name.endswith(_NUMBERS) or name.startswith(("id_", "source_")):
            continue
        whole = file.read_bytes()
        values = np.frombuffer(whole, "<u4").copy()
        values[1:-1] = 0xFFFFFFF0
        file.write_bytes(values.tobytes())
        (segment,) = open_archive(indexed).cover.segments
        with pytest.raises(ValueError, match=r"range|damaged|positions|rows|order"):
            _ask_much(segment, everything)
        file.write_bytes(whole)


def test_files_cut_anywhere_are_noticed_on_opening(indexed, ids_of):
    ids = ids_of(open_archive(indexed))
    folder = _folder(indexed)
    generator = np.random.default_rng(1)
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        # The line end of segment.json may go.
        for length in {0, len(whole) - 2, int(generator.integers(len(whole) - 1))} if whole else ():
            file.write_bytes(whole[:length])
            snapshot = open_archive(indexed)
            (problem,) = snapshot.cover.problems
            assert problem.startswith(f"index/segments/{folder.name}/")
            assert problem.count(folder.name) == 1
            remedy = f"; searches do without it until 'patchknn archive index {indexed}' mends it."
            assert problem.endswith(remedy)
            assert snapshot.cover.bare == tuple(snapshot.shards)
            assert snapshot.locate(ids[5]) == 5
            assert _findings(indexed)
        file.unlink()
        assert len(open_archive(indexed).cover.problems) == 1
        file.write_bytes(whole)
    assert open_archive(indexed).cover.problems == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(format_version=99),
        lambda v: v.pop("format"),
        lambda v: v.update(rows=v["rows"] + 1),
        lambda v: v.update(codes=v["codes"] + 1),
        lambda v: v.update(codes=0),
        lambda v: v.update(bits=72),
        lambda v: v.update(archive_id="0" * 32),
        lambda v: v.update(parts=[[0, 40], [32, 4]]),
        lambda v: v.update(parts=[[60, 8]]),
        lambda v: v.update(parts=7),
        lambda v: v.update(sketch={"scale": -1, "slack": 0}),
        lambda v: v["arrays"].pop("codes"),
        lambda v: v["arrays"].pop("id_entries"),
        lambda v: v["arrays"]["codes"].update(dtype="|O"),
        lambda v: v["arrays"]["codes"].update(shape=[1 << 60, 1]),
        lambda v: v["arrays"]["rows"].update(shape=[-1]),
        lambda v: v["arrays"].update({"../../x": v["arrays"]["codes"]}),
    ],
)
def test_a_head_that_cannot_be_is_passed_over(indexed, ids_of, change):
    """As a hostile author would write it: with a right checksum."""
    ids = ids_of(open_archive(indexed))
    file = _folder(indexed) / "segment.json"
    value = json.loads(file.read_bytes())
    change(value)
    file.write_bytes(sealed_text(value))
    snapshot = open_archive(indexed)
    assert len(snapshot.cover.problems) == 1
    assert snapshot.cover.segments == ()
    assert np.array_equal(snapshot.locate_many(ids[::50]), np.arange(len(ids))[::50])
    report = update_index(indexed)
    assert (report.built, report.rows) == (1, len(ids))
    assert open_archive(indexed).cover.problems == ()


def test_verify_names_the_remedy_and_the_remedy_works(indexed):
    file = _folder(indexed) / "codes.bin"
    data = bytearray(file.read_bytes())
    data[1234] ^= 0x10
    file.write_bytes(data)
    (finding,) = verify_archive(indexed)
    assert finding.is_derived
    assert finding.file == file.relative_to(indexed).as_posix()
    assert f"'patchknn archive index {indexed} --rebuild'" in finding.sentence
    update_index(indexed, rebuild=True)
    assert verify_archive(indexed) == []
    assert len(open_archive(indexed).cover.segments) == 1


@pytest.mark.parametrize("how", ["delete", "truncate", "grow", "link"])
@pytest.mark.parametrize("what", ["features", "json"])
def test_a_damaged_shard_is_named_on_opening_though_an_index_vouches(indexed, how, what):
    shard = open_archive(indexed).shards[1]
    place = shard.description.arrays["features"]
    name = place.file if what == "features" else f"{shard.uuid}.json"
    file = indexed / "shards" / name
    if how == "truncate":
        os.truncate(file, file.stat().st_size - 2)
    elif how == "grow":
        file.write_bytes(file.read_bytes() + (b"\0" if what == "features" else b"x"))
    else:
        shutil.copy(file, indexed / "elsewhere")
        file.unlink()
        if how == "link":
            file.symlink_to(indexed / "elsewhere")
    if (what, how) == ("json", "link"):  # the JSON is what it was
        assert open_archive(indexed).n_rows == 4500
        return
    with pytest.raises(DamageError) as error:
        open_archive(indexed)
    assert str(file) in str(error.value)


def test_a_changed_shard_json_is_read_again(indexed):
    """Other bytes of the same content, as an editor leaves them: the shard is whole."""
    shard = open_archive(indexed).shards[0]
    file = indexed / "shards" / f"{shard.uuid}.json"
    file.write_text(json.dumps(json.loads(file.read_bytes())))
    assert open_archive(indexed).shards[0].description == shard.description
