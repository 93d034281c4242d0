"""Sketches are those of the features at their positions, computed or taken over."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.index import sketch_writer
from patchknn.archive.index.build import build_segment
from patchknn.archive.index.heads import read_heads, read_one
from patchknn.archive.index.segment import Segment
from patchknn.archive.index.update import update_index
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.hamming.sketch import Projection

_DIRECTIONS = np.random.default_rng(0).normal(size=(8, 512))


def _grow(path, number, n):
    """One shard of rows near few directions; codes of 8 bits are shared by many of all shards."""
    generator = np.random.default_rng(number)
    features = (generator.normal(size=(n, len(_DIRECTIONS))) @ _DIRECTIONS).astype(np.float16)
    source = Source(f"s{number}", "/s", 1, 1, bytes([number]) * 16)
    coords = np.stack([np.arange(n), np.arange(n)], axis=1)
    zeros = np.zeros(n, np.int32)
    with ArchiveWriter(path) as writer:
        codes = open_archive(path).bundle().codes(features)
        writer.add(Rows(features, codes, coords, zeros, zeros, (source,), ("A",)))
        writer.publish()


@pytest.fixture
def path(tmp_path, make_bundle):
    bundle = make_bundle(tmp_path / "encoder", bits=8, dim=512)
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    for number, n in enumerate((400, 500)):
        _grow(path, number, n)
    return path


@pytest.fixture(params=[1 << 20, 90])
def block(request, monkeypatch):
    """Segments are written in one block of positions, or in many."""
    monkeypatch.setattr(sketch_writer, "_BLOCK_POSITIONS", request.param)


@pytest.fixture
def computed(monkeypatch):
    """How many rows were computed, call by call."""
    counts = []
    whole = Projection.bounded_sketch

    def counted(self, features):
        counts.append(len(features))
        return whole(self, features)

    monkeypatch.setattr(Projection, "bounded_sketch", counted)
    return counts


def _by_position(segment):
    features = np.concatenate([shard.features for shard in segment.shards])
    return features[segment.segment_rows(np.arange(segment.n_rows))]


def _check(segment):
    sketch = segment.sketch
    values, slack = sketch.projection.bounded_sketch(_by_position(segment))
    # Products of matrices differ in their last bits by the number of rows at once.
    apart = np.abs(values.astype(np.float64) - sketch.values.astype(np.float64))
    assert (apart <= np.spacing(np.abs(values).max())).all()
    assert sketch.slack >= slack * 0.999


def _only(path):
    (segment,) = open_archive(path).cover.segments
    _check(segment)
    return segment


def _damage(segment, name, values):
    (segment.folder / f"{name}.bin").write_bytes(values.tobytes())


@pytest.mark.usefixtures("block")
def test_they_are_those_of_the_features_and_are_taken_over(path, computed):
    update_index(path)
    first = _only(path)
    assert first.rows is not None
    _grow(path, 2, 600)
    computed.clear()
    update_index(path)
    assert sum(computed) == 600
    second = _only(path)
    assert second.n_rows == 1500
    assert np.array_equal(second.sketch.projection.matrix, first.sketch.projection.matrix)
    positions = np.argsort(second.segment_rows(np.arange(1500)))[:900]
    before = np.argsort(first.segment_rows(np.arange(900)))
    assert np.array_equal(second.sketch.values[positions], first.sketch.values[before])
    update_index(path, rebuild=True)
    assert _only(path).n_rows == 1500


@pytest.mark.usefixtures("block")
def test_one_shard_becomes_part_of_many(tmp_path, make_bundle, computed):
    path = tmp_path / "archive"
    bundle = make_bundle(tmp_path / "encoder", bits=8, dim=512)
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    _grow(path, 0, 700)
    update_index(path)
    assert _only(path).rows is None
    _grow(path, 1, 600)
    computed.clear()
    update_index(path)
    assert sum(computed) == 600
    assert _only(path).n_rows == 1300


@pytest.mark.usefixtures("block")
def test_flipped_bits_are_not_taken_over(path, computed):
    update_index(path)
    segment = _only(path)
    values = segment.sketch.values.copy()
    values.view(np.uint8)[-3, 7] ^= 0x55
    _damage(segment, "sketch", values)
    _grow(path, 2, 600)
    computed.clear()
    update_index(path)
    assert sum(computed) >= 1500
    assert _only(path).n_rows == 1500


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("how", ["two swapped", "one out of range", "all the same", "reversed"])
def test_a_damaged_map_leads_no_sketch_astray(path, how):
    update_index(path)
    segment = _only(path)
    rows = segment.rows.copy()
    if how == "two swapped":
        rows[[100, 700]] = rows[[700, 100]]
    elif how == "one out of range":
        rows[333] = 0xFFFFFFFF
    elif how == "all the same":
        rows[:] = 5
    else:
        rows = rows[::-1].copy()
    _damage(segment, "rows", rows)
    _grow(path, 2, 600)
    update_index(path)
    assert _only(path).n_rows == 1500


@pytest.mark.usefixtures("block")
def test_a_donor_whose_shards_are_in_another_order_or_are_not_all_there(path):
    _grow(path, 2, 600)
    update_index(path)
    snapshot = open_archive(path)
    donor = _only(path)
    (head,), _ = read_heads(path)
    pairs = list(zip(snapshot.shards, [checksum for _, checksum in head.shards], strict=True))
    for places in ([2, 1, 0], [0, 1], [1, 2], [2]):
        chosen = [pairs[place] for place in places]
        name = build_segment(path, snapshot.settings, chosen, donor=donor)
        found = read_one(donor.folder.with_name(name), path)
        segment = Segment(found, snapshot.shards.select(np.array(places)), snapshot.settings)
        assert segment.n_rows == sum(len(shard) for shard, _ in chosen)
        _check(segment)
