"""The same rows as Zarr and as HDF5: valid for both libraries, and plain bytes."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchknn.archive import streaming
from patchknn.archive.checksums import array_checksum
from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import ConflictError


def _open(folder, description):
    file = folder / ("shards/" + description.uuid)
    if description.container == "zarr":
        return zarr.open_group(f"{file}.zarr", mode="r", zarr_format=3)
    return h5py.File(f"{file}.h5")


def _both(tmp_path, bundle, rows, **settings):
    shards = []
    for container in ("zarr", "hdf5"):
        path = tmp_path / f"as-{container}"
        create_archive(path, bundle, patch_px=64, mpp=None, **settings)
        with ArchiveWriter(path, format=container, store_paths=True) as writer:
            writer.add(rows)
            writer.publish()
        (shard,) = open_archive(path).shards
        shards.append(shard)
    return shards


@pytest.mark.parametrize("thumbnails", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("block_bytes", [32, 4 << 20])
def test_zarr_h5py_and_memory_maps_see_equal_arrays(  # noqa: PLR0917
    tmp_path, bundle, make_rows, monkeypatch, thumbnails, dtype, block_bytes
):
    monkeypatch.setattr(streaming, "_BLOCK_BYTES", block_bytes)
    rows = make_rows(bundle, thumbnails=thumbnails, dtype=dtype)
    shards = _both(tmp_path, bundle, rows, feature_dtype=dtype)
    names = set(shards[0].description.arrays)
    assert names == set(shards[1].description.arrays)
    assert ("thumbnail_bytes" in names) == thumbnails
    for shard in shards:
        opened = _open(shard.path, shard.description)
        assert set(opened.keys()) == names
        assert json.loads(opened.attrs["classes"]) == ["A", "B"]
        for name in names:
            mapped = shard.array(name)
            assert np.array_equal(opened[name][...], mapped, equal_nan=name == "source_mpp")
            assert opened[name].dtype == mapped.dtype
            assert mapped.tobytes() == shards[0].array(name).tobytes()
            assert shard.description.arrays[name].checksum == array_checksum(mapped)
            assert not mapped.flags.writeable


def test_each_zarr_array_is_one_uncompressed_chunk(archive):
    shard = open_archive(archive).shards[0]
    assert shard.description.container == "zarr"
    group = _open(archive, shard.description)
    for name, array in group.arrays():
        assert array.chunks == array.shape, name
        assert array.compressors == ()
        assert array.nchunks_initialized == 1
    for name, place in shard.description.arrays.items():
        assert place.offset == 0
        assert (archive / "shards" / place.file).stat().st_size == place.nbytes, name


def test_a_zarr_group_says_of_itself_what_zarr_would(archive, tmp_path):
    shard = open_archive(archive).shards[0]
    own = archive / "shards" / f"{shard.uuid}.zarr"
    group = zarr.create_group(
        tmp_path / "theirs.zarr",
        zarr_format=3,
        attributes=json.loads((own / "zarr.json").read_text())["attributes"],
    )
    for name, place in shard.description.arrays.items():
        group.create_array(
            name,
            shape=place.shape,
            chunks=place.shape,
            dtype=place.dtype,
            compressors=None,
            filters=None,
        )
    theirs = tmp_path / "theirs.zarr"
    files = sorted(file.relative_to(theirs) for file in theirs.rglob("zarr.json"))
    assert files == sorted(file.relative_to(own) for file in own.rglob("zarr.json"))
    for file in files:
        assert json.loads((own / file).read_text()) == json.loads((theirs / file).read_text())


def test_each_hdf5_array_is_contiguous_and_page_aligned(archive):
    shard = open_archive(archive).shards[1]
    assert shard.description.container == "hdf5"
    with _open(archive, shard.description) as file:
        for name, place in shard.description.arrays.items():
            assert file[name].chunks is None
            assert file[name].id.get_offset() == place.offset
            assert place.offset % 4096 == 0


def test_the_json_alone_leads_to_the_bytes(archive):
    for file in (archive / "shards").glob("*.json"):
        description = json.loads(file.read_bytes())
        place = description["arrays"]["features"]
        count = place["shape"][0] * place["shape"][1]
        values = np.fromfile(
            archive / "shards" / place["file"], place["dtype"], count, offset=place["offset"]
        )
        uuid = description["uuid"]
        (shard,) = (s for s in open_archive(archive).shards if s.uuid == uuid)
        oracle = _open(archive, shard.description)["features"][...]
        assert np.array_equal(values.reshape(place["shape"]), oracle)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # examples are files: shrinking is slow
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_goes_in_comes_out(data, tmp_path_factory, bundle):
    n = data.draw(st.integers(1, 12))
    finite = st.floats(-100, 100, width=16)
    features = data.draw(arrays.arrays(np.float16, (n, 12), elements=finite))
    text = st.text(min_size=1, max_size=8)
    names = data.draw(st.lists(text, min_size=1, max_size=4, unique=True))
    sources = tuple(
        Source(
            name,
            f"/{name}",
            data.draw(st.integers(0, 2**62)),
            data.draw(st.integers(-(2**62), 2**62)),
            data.draw(st.binary(min_size=16, max_size=16)),
            data.draw(st.none() | st.floats(0.05, 2)),
            data.draw(st.none() | text),
        )
        for name in names
    )
    source = np.array(data.draw(st.lists(st.integers(0, len(names) - 1), min_size=n, max_size=n)))
    coords = np.column_stack([np.arange(n), data.draw(arrays.arrays(np.int64, n))])
    classes = tuple(data.draw(st.lists(text, max_size=3, unique=True)))
    labels = np.array(
        data.draw(st.lists(st.integers(-1, len(classes) - 1), min_size=n, max_size=n))
    )
    rows = Rows(features, bundle.codes(features), coords, source, labels, sources, classes)
    tmp_path = tmp_path_factory.mktemp("round-trip")
    for shard in _both(tmp_path, bundle, rows):
        snapshot = open_archive(shard.path)
        assert snapshot.n_sources == len(np.unique(source))
        given_rows = {}
        for i in range(n):
            own = sources[source[i]]
            label = None if labels[i] < 0 else classes[labels[i]]
            given_rows[(own.name, *coords[i].tolist())] = (own, label, features[i].tobytes())
        for row in range(n):
            stored = snapshot.row(row)
            own, label, feature = given_rows.pop((stored.source, stored.x, stored.y))
            local, number = snapshot.shard_of(row)
            assert local.source_record(int(local.source[number])) == own
            assert (stored.label, stored.patient, stored.mpp) == (label, own.patient, own.mpp)
            assert local.features[number].tobytes() == feature
            assert snapshot.locate(stored.id) is not None
        assert not given_rows


def test_rows_lie_in_the_order_of_their_codes_whatever_order_they_came_in(
    tmp_path, bundle, make_rows
):
    rows = make_rows(bundle)
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    first, _ = _both(tmp_path / "1", bundle, rows)
    second, _ = _both(tmp_path / "2", bundle, shuffled)
    codes = [bytes(code) for code in first.codes]
    assert codes == sorted(codes)
    for name in ("features", "codes", "coords", "label", "source", "source_name_bytes"):
        assert first.array(name).tobytes() == second.array(name).tobytes()


def test_a_library_that_has_no_plain_bytes_is_noticed(empty, bundle, make_rows, monkeypatch):
    usual = h5py.Group.create_dataset

    def create(self, *arguments, dcpl, **settings):  # which allocates nothing before it writes
        del dcpl
        return usual(self, *arguments, **settings)

    monkeypatch.setattr(h5py.Group, "create_dataset", create)
    with ArchiveWriter(empty, format="hdf5") as writer:
        writer.add(make_rows(bundle))
        with pytest.raises(ConflictError, match="plain bytes"):
            writer.publish()
    assert not list((empty / "shards").iterdir())


def test_reading_needs_neither_zarr_nor_h5py_nor_torch(archive):
    program = f"""
import sys
from pathlib import Path
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.hamming.scan import scan_rows
path = Path({str(archive)!r})
snapshot = open_archive(path)
for shard in snapshot.shards:
    scan_rows(shard.codes, shard.codes[:1], 1), shard.features.sum(), shard.labels.sum()
assert snapshot.locate(snapshot.row(5).id) == 5 and not verify_archive(path)
print(sorted({{"zarr", "h5py", "torch", "duckdb", "sklearn"}} & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.stdout.strip() == "[]", finished.stderr
