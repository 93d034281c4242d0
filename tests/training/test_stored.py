"""Features of archives and files as one set of training data, and its splits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.datasets.patches import Problem
from patchknn.errors import ConflictError, DamageError, InputError
from patchknn.training import stored as stored_module
from patchknn.training.selection import SplitChoice, select
from patchknn.training.stored import origin_encoder, read_stored, stored_patches

DIM, BITS = 6, 16


def make_archive(path, *, seed=0, dtype="float16", prefix="", formats=("zarr", "hdf5"), encoder=0):
    """Slides of four patches and one image, a shard per format; what was written, by patch."""
    rng = np.random.default_rng([encoder, 7])
    hash_map = LinearMap(
        rng.normal(size=(BITS, DIM)).astype(np.float32), np.zeros(BITS, np.float32)
    )
    folder = path.with_name(f"{path.name}-encoder")
    write_bundle(folder, EncoderDescription(DIM, BITS, "itq"), hash_map)
    bundle = load_bundle(folder)
    create_archive(path, bundle, patch_px=224, mpp=0.5, feature_dtype=dtype)
    written = {}
    rng = np.random.default_rng(seed)
    for number, layout in enumerate(formats):
        names = (f"{prefix}s{number}.svs", f"{prefix}i{number}.png")
        features = rng.normal(size=(5, DIM)).astype(dtype)
        coords = np.array([[0, 0], [224, 0], [0, 224], [224, 224], [-1, -1]])
        source = np.array([0, 0, 0, 0, 1], np.int32)
        labels = np.array([number, 1 - number, -1, number, 0], np.int32)
        classes = ("B", "A")
        sources = tuple(
            Source(name, f"/data/{name}", 9, 1, name.encode().rjust(16, b"-"), 0.25, patient)
            for name, patient in zip(names, (f"{prefix}P{number}", None), strict=True)
        )
        rows = Rows(features, bundle.codes(features), coords, source, labels, sources, classes)
        with ArchiveWriter(path, format=layout, run_id=f"run{number}") as writer:
            writer.add(rows)
            writer.publish()
        for row in range(5):
            owner = sources[source[row]]
            label = None if labels[row] < 0 else classes[labels[row]]
            written[owner.name, *coords[row].tolist()] = (
                features[row].tobytes(), label, owner.patient,
            )  # fmt: skip
    return written, bundle.fingerprint


def make_file(path, n=3, value=0.0, dtype="float16"):
    features = (np.arange(n * DIM).reshape(n, DIM) / 8 + value).astype(dtype)
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = np.stack([np.arange(n) * 512, np.zeros(n, int)], axis=1)
    return features


def by_patch(stored):
    columns = zip(
        stored.sources, stored.coords.tolist(), stored.features, stored.labels, stored.patients,
        strict=True,
    )  # fmt: skip
    return {
        (source, int(x), int(y)): (feature.tobytes(), label, patient)
        for source, (x, y), feature, label, patient in columns
    }


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows_at_once", [1, 1000])
def test_every_row_of_an_archive_comes_with_what_was_written(
    tmp_path, monkeypatch, dtype, rows_at_once
):
    width = DIM * np.dtype(dtype).itemsize
    monkeypatch.setattr(stored_module, "_BLOCK_BYTES", rows_at_once * width)
    written, fingerprint = make_archive(tmp_path / "archive", dtype=dtype)
    stored = read_stored([tmp_path / "archive"])
    assert len(stored) == len(written) == 10
    assert by_patch(stored) == written
    assert stored.features.dtype == dtype
    assert stored.encoder == fingerprint
    assert stored.class_names == ("A", "B")
    (origin,) = stored.origins
    assert (origin.kind, origin.rows, origin.unit) == ("archive", 10, "px")
    assert (origin.attributes["patch_px"], origin.attributes["mpp"]) == (224, 0.5)
    assert stored.problems == ()


def test_archives_and_files_are_put_one_behind_the_other(tmp_path):
    written, _ = make_archive(tmp_path / "one", formats=("hdf5",))
    other, _ = make_archive(tmp_path / "two", seed=1, prefix="x", formats=("zarr",))
    features = make_file(tmp_path / "f.h5")
    stored = read_stored([tmp_path / "f.h5", tmp_path / "one", tmp_path / "two"])
    assert [origin.rows for origin in stored.origins] == [3, 5, 5]
    np.testing.assert_array_equal(stored.features[:3], features)
    assert stored.features.dtype == np.float16
    found = by_patch(stored)
    assert {key: found[key] for key in [*written, *other]} == {**written, **other}
    assert stored.encoder is None
    wide = make_file(tmp_path / "wide.h5", dtype="float32")
    mixed = read_stored([tmp_path / "wide.h5", tmp_path / "one"])
    assert mixed.features.dtype == np.float32
    np.testing.assert_array_equal(mixed.features[:3], wide)
    assert by_patch(read_stored([tmp_path / "one"])) == written


def test_a_table_speaks_of_archives_and_files_alike(tmp_path):
    make_archive(tmp_path / "archive", formats=("hdf5",))
    make_file(tmp_path / "f.h5")
    (tmp_path / "l.csv").write_text(
        "slide,label,patient,split,x,y\nf,C,P9,val,,\ns0.svs,D,P8,train,,\ns0.svs,A,,,224,0\n"
    )
    stored = read_stored([tmp_path / "archive", tmp_path / "f.h5"], tmp_path / "l.csv")
    assert stored.problems == ()
    rows = by_patch(stored)
    labels = {key: value[1:] for key, value in rows.items()}
    assert labels["s0.svs", 224, 0] == ("A", "P8")
    assert labels["s0.svs", 0, 224] == ("D", "P8")
    assert labels["i0.png", -1, -1] == ("B", None)  # the archive's own
    assert labels["f", 512, 0] == ("C", "P9")
    splits = dict(zip(stored.sources, stored.splits, strict=True))
    assert splits == {"s0.svs": "train", "i0.png": None, "f": "val"}


def test_one_row_for_a_slide_of_an_archive_and_for_a_file_is_refused(tmp_path):
    make_archive(tmp_path / "archive", formats=("hdf5",))
    make_file(tmp_path / "s0.h5")
    (tmp_path / "l.csv").write_text("slide,label\ns0,A\n")
    with pytest.raises(InputError, match=r"'s0' stands for both 's0\.svs' and 's0'"):
        read_stored([tmp_path / "archive", tmp_path / "s0.h5"], tmp_path / "l.csv")


def test_what_does_not_go_together_or_is_nothing_of_these_is_named(tmp_path):
    make_archive(tmp_path / "one", formats=("hdf5",))
    make_archive(tmp_path / "two", formats=("hdf5",))
    with pytest.raises(ConflictError, match=r"both hold features of '[si]0"):
        read_stored([tmp_path / "one", tmp_path / "two"])
    make_archive(tmp_path / "three", prefix="y", encoder=1)
    with pytest.raises(ConflictError, match="give features of one encoder"):
        read_stored([tmp_path / "one", tmp_path / "three"])
    with pytest.raises(InputError, match="absent does not exist"):
        read_stored([tmp_path / "absent"])
    (tmp_path / "t.txt").write_text("no features")
    with pytest.raises(InputError, match=r"t\.txt is not an archive, an HDF5 file"):
        read_stored([tmp_path / "t.txt"])
    make_archive(tmp_path / "empty", formats=())
    with pytest.raises(InputError, match="no stored features"):
        read_stored([tmp_path / "empty"])


def test_a_folder_with_archives_in_it_is_not_taken_for_feature_files(tmp_path):
    make_archive(tmp_path / "data" / "archive", formats=("hdf5",))
    make_file(tmp_path / "data" / "f.h5")
    stored = read_stored([tmp_path / "data"])
    assert set(stored.sources) == {"f"}
    (problem,) = stored.problems
    assert isinstance(problem, Problem)
    assert "is a shard of an archive; give the archive itself" in problem.error


def test_a_damaged_archive_is_an_error(tmp_path):
    make_archive(tmp_path / "archive", formats=("hdf5",))
    (shard,) = (tmp_path / "archive" / "shards").glob("*.h5")
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DamageError):
        read_stored([tmp_path / "archive"])


@pytest.fixture
def twelve(tmp_path):
    """Twelve slides of six patients and two labels, three patches each."""
    folder = tmp_path / "features"
    folder.mkdir()
    lines = ["slide,label,patient"]
    for number in range(12):
        make_file(folder / f"s{number:02}.h5", value=number)
        lines.append(f"s{number:02},{'AB'[number % 2]},P{number // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return read_stored([folder], tmp_path / "labels.csv")


def test_rows_are_patches_that_know_their_row_and_keep_patients_apart(twelve):
    patches = stored_patches(twelve)
    assert [patch.row for patch in patches] == list(range(36))
    assert {patch.kind for patch in patches} == {"features"}
    chosen = select(patches, SplitChoice(fractions=(70, 30)), seed=0, needs_labels=True)
    assert chosen.class_names == ("A", "B")
    sides = [{patch.patient for patch in part} for part in (chosen.train, chosen.val)]
    assert not sides[0] & sides[1]
    for patch in (*chosen.train, *chosen.val):
        assert twelve.labels[patch.row] == patch.label
        assert twelve.sources[patch.row] == patch.source
        assert patch.path.name == f"{patch.source}.h5"


def test_the_encoder_of_an_archive_is_known_and_that_of_files_is_not(tmp_path, twelve):
    assert origin_encoder(twelve) is None
    make_archive(tmp_path / "archive")
    stored = read_stored([tmp_path / "archive"])
    encoder = origin_encoder(stored)
    assert encoder.fingerprint == stored.origins[0].encoder
    manifest = stored_patches(stored)[0].path
    assert manifest.is_file()
    assert manifest.parent == tmp_path / "archive" / "manifests"


def test_reading_an_archive_needs_neither_zarr_nor_h5py(tmp_path):
    make_archive(tmp_path / "archive")
    program = f"""
import sys
sys.modules["zarr"] = sys.modules["h5py"] = None
from patchknn.training.stored import read_stored
print(len(read_stored([{str(tmp_path / "archive")!r}])))
"""
    root = Path(stored_module.__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"},
    )
    assert finished.stdout.strip() == "10", finished.stderr
