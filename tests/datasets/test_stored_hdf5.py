"""Features as TRIDENT, CLAM and STAMP lay them out, and files that hold none."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from patchknn.datasets import stored_hdf5
from patchknn.datasets.stored import put_together
from patchknn.datasets.stored_hdf5 import feature_parts
from patchknn.datasets.stored_labels import labelled
from patchknn.errors import ConflictError, InputError

DIM = 6


def read_feature_files(paths, labels=None):
    """All of it: parts, labels, put together."""
    return put_together(labelled((part for path in paths for part in feature_parts(path)), labels))


def values(n, seed, dtype="float32", dim=DIM):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(dtype)


def positions(n, step=512):
    return np.stack([np.arange(n) * step, np.full(n, 3 * step)], axis=1)


def trident(path, n=5, seed=0, **changes):
    """Chunked by rows and growable, with attributes on both datasets."""
    features = values(n, seed, **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        shape = (None, features.shape[1])
        written = file.create_dataset(
            "features", data=features, maxshape=shape, chunks=(1, shape[1])
        )
        written.attrs["name"] = path.stem
        written.attrs["savetodir"] = str(path.parent)
        coords = file.create_dataset(
            "coords", data=positions(n).astype(np.int64), maxshape=(None, 2), chunks=(1, 2)
        )
        for key, value in {
            "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
            "target_magnification": 20, "overlap": 0, "name": path.stem, "level0_width": 9000,
        }.items():  # fmt: skip
            coords.attrs[key] = value
    return features


def clam(path, n=4, seed=0):
    """No attribute at all, int32 positions."""
    features = values(n, seed)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, maxshape=(None, DIM))
        file.create_dataset("coords", data=positions(n, 256).astype(np.int32))
    return features


def stamp(path, n=3, seed=0, **attributes):
    """float16 under another name, positions in µm, attributes on the file."""
    features = values(n, seed, "float16")
    with h5py.File(path, "w") as file:
        file["coords"] = (positions(n) / 2).astype(np.float32)
        file["feats"] = features
        said = {
            "stamp_version": "2.4.0", "extractor": "uni-1a2b", "unit": "um", "tile_size_um": 256.0,
            "tile_size_px": 224, "code_hash": "0000", "feat_type": "tile",
        }  # fmt: skip
        for key, value in {**said, **attributes}.items():
            if value is not None:
                file.attrs[key] = value
    return features


def test_each_layout_is_read_as_it_is(tmp_path):
    written = [
        trident(tmp_path / "a.h5", seed=1),
        clam(tmp_path / "b.h5", seed=2),
        stamp(tmp_path / "c.h5", seed=3),
    ]
    result = read_feature_files([tmp_path / name for name in ("c.h5", "a.h5", "b.h5")])
    assert result.features.dtype == np.float32
    expected = np.concatenate([written[2].astype(np.float32), written[0], written[1]])
    np.testing.assert_array_equal(result.features, expected)
    assert result.sources == ("c",) * 3 + ("a",) * 5 + ("b",) * 4
    np.testing.assert_array_equal(
        result.coords, np.concatenate([positions(3) / 2, positions(5), positions(4, 256)])
    )
    assert [(o.path.name, o.rows, o.unit, o.encoder) for o in result.origins] == [
        ("c.h5", 3, "um", "uni-1a2b"),
        ("a.h5", 5, "px", None),
        ("b.h5", 4, "px", None),
    ]
    assert result.origins[0].attributes["tile_size_px"] == 224
    assert result.origins[1].attributes["target_magnification"] == 20
    assert (len(result), result.dim, result.problems) == (12, DIM, ())
    assert result.labels == result.patients == result.splits == (None,) * 12


def test_half_precision_stays_so_where_all_are(tmp_path):
    first = stamp(tmp_path / "a.h5", seed=1)
    second = stamp(tmp_path / "b.h5", seed=2)
    result = read_feature_files([tmp_path])
    assert result.features.dtype == np.float16
    np.testing.assert_array_equal(result.features, np.concatenate([first, second]))
    assert result.encoder == "uni-1a2b"


def test_a_leading_one_is_taken_off_and_doubles_are_narrowed(tmp_path):
    features = values(4, 0, "float64")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["features"] = features[None]
        file["coords"] = positions(4)[None]
    result = read_feature_files([tmp_path / "old.h5"])
    np.testing.assert_array_equal(result.features, features.astype(np.float32))
    np.testing.assert_array_equal(result.coords, positions(4))


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        ({"unit": None}, "um"),
        ({"unit": "px", "tile_size_um": None}, "px"),
        ({"unit": "um", "tile_size_um": None, "tile_size": 256.0}, "um"),
        ({"unit": None, "tile_size_um": None, "stamp_version": None}, None),
    ],
)
def test_the_unit_of_coordinates_is_what_the_file_says(tmp_path, attributes, unit):
    stamp(tmp_path / "a.h5", **attributes)
    assert read_feature_files([tmp_path]).origins[0].unit == unit


def test_blocks_are_put_together_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_hdf5, "_BLOCK_BYTES", 3 * DIM * 4)
    features = trident(tmp_path / "a.h5", n=10)
    np.testing.assert_array_equal(read_feature_files([tmp_path]).features, features)
    assert [len(block) for part in feature_parts(tmp_path) for block in part.blocks()] == [
        3, 3, 3, 1,
    ]  # fmt: skip


def test_a_folder_is_read_below_and_names_are_paths(tmp_path):
    trident(tmp_path / "site B" / "1.h5", n=2, seed=1)
    trident(tmp_path / "site A" / "1.hdf5", n=1, seed=2)
    trident(tmp_path / ".hidden" / "2.h5", n=1)
    (tmp_path / "notes.txt").write_text("no features")
    assert read_feature_files([tmp_path]).sources == ("site A/1", "site B/1", "site B/1")


def test_labels_and_patients_of_patchknns_own_files_are_taken(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = values(3, 0)
        coords = file.create_dataset("coords", data=positions(3))
        coords.attrs["name"] = "deep/a.svs"
        coords.attrs["patient"] = "P1"
        texts = ["TUM", "", "Ä"]
        file.create_dataset("label", data=texts, dtype=h5py.string_dtype())
        file.attrs["patchknn_format"] = 1
    result = read_feature_files([tmp_path / "a.h5"])
    assert result.sources == ("deep/a.svs",) * 3
    assert result.labels == ("TUM", None, "Ä")
    assert result.patients == ("P1",) * 3
    assert result.class_names == ("TUM", "Ä")


def test_files_without_coordinates_or_without_tissue_are_no_problem(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = values(2, 0)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["features"] = np.zeros((0,), np.float32)
        file["coords"] = np.zeros((0, 2), np.int64)
    result = read_feature_files([tmp_path])
    assert result.sources == ("a", "a")
    assert (result.coords == -1).all()
    assert result.problems == ()


def _write(path, **arrays):
    attributes = arrays.pop("attributes", {})
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
        file.attrs.update(attributes)


_BROKEN = {
    "holds no dataset 'features' .* but coords": {"coords": positions(3)},
    r"shape \(6,\), not \(N, D\): give features of patches": {
        "features": values(1, 0)[0]
    },
    r"of a slide, not \(N, D\)": {
        "feats": values(1, 0), "attributes": {"feat_type": "slide"}
    },
    "features is of type int64": {"features": np.ones((3, DIM), np.int64)},
    r"coords has the shape \(4, 2\) for 3 features": {
        "features": values(3, 0), "coords": positions(4)
    },
    r"label has the shape \(2,\) for 3 features": {
        "features": values(3, 0), "label": ["a", "b"]
    },
    "label is of type int64; write the names": {"features": values(3, 0), "label": [0, 1, 2]},
    "is a shard of an archive": {
        "features": values(3, 0), "codes": np.zeros((3, 2)), "source": np.zeros(3)
    },
}  # fmt: skip


@pytest.mark.parametrize("sentence", _BROKEN)
def test_a_file_that_holds_no_features_of_patches_is_named_and_the_rest_read(tmp_path, sentence):
    _write(tmp_path / "bad.h5", **_BROKEN[sentence])
    trident(tmp_path / "good.h5")
    result = read_feature_files([tmp_path])
    assert set(result.sources) == {"good"}
    (problem,) = result.problems
    assert problem.name == str(tmp_path / "bad.h5")
    assert str(tmp_path / "bad.h5") in problem.error
    with pytest.raises(InputError, match=sentence):
        read_feature_files([tmp_path / "bad.h5"])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_none_is_named_by_file_and_row(tmp_path, wrong):
    features = values(7, 0)
    features[4, 2] = wrong
    _write(tmp_path / "b.h5", features=features, coords=positions(7))
    before, after = trident(tmp_path / "a.h5", seed=1), trident(tmp_path / "c.h5", seed=2)
    result = read_feature_files([tmp_path])
    (problem,) = result.problems
    assert "b.h5: the features of row 4 hold a NaN or an infinity" in problem.error
    np.testing.assert_array_equal(result.features, np.concatenate([before, after]))
    assert result.sources == ("a",) * 5 + ("c",) * 5
    assert [origin.path.name for origin in result.origins] == ["a.h5", "c.h5"]
    assert len(result.coords) == len(result.labels) == 10


def test_doubles_beyond_single_precision_are_named(tmp_path):
    _write(tmp_path / "a.h5", features=np.full((1, 2), 1e300))
    with pytest.raises(InputError, match="a NaN or an infinity"):
        read_feature_files([tmp_path])


def test_what_is_not_hdf5_or_cut_off_is_named(tmp_path):
    (tmp_path / "text.h5").write_text("features")
    trident(tmp_path / "cut.h5", n=2000)
    content = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    trident(tmp_path / "good.h5")
    result = read_feature_files([tmp_path, tmp_path / "absent.h5"])
    assert sorted(problem.error.split(" ")[0].rsplit("/", 1)[1] for problem in result.problems) == [
        "absent.h5", "cut.h5", "text.h5",
    ]  # fmt: skip
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none holds no HDF5 file"):
        read_feature_files([tmp_path / "none"])


def test_features_that_do_not_go_together_name_both_files(tmp_path):
    trident(tmp_path / "a.h5")
    trident(tmp_path / "b.h5", dim=DIM + 1)
    with pytest.raises(
        ConflictError, match=r"b\.h5 holds features of dimension 7 and .*a\.h5 of 6"
    ):
        read_feature_files([tmp_path])
    stamp(tmp_path / "c.h5")
    stamp(tmp_path / "d.h5", extractor="virchow")
    with pytest.raises(ConflictError, match=r"d\.h5 were made by virchow and .*c\.h5 by uni-1a2b"):
        read_feature_files([tmp_path / "c.h5", tmp_path / "d.h5"])
    trident(tmp_path / "other" / "a.h5")
    with pytest.raises(ConflictError, match="both hold features of 'a'"):
        read_feature_files([tmp_path / "a.h5", tmp_path / "other" / "a.h5"])
