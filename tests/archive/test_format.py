"""A reader of sixty lines, made from examples/format.md alone, sees what patchknn sees."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import h5py
import numpy as np
import pytest
import zarr

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.listing import list_rows
from patchknn.archive.relabel import Correction, relabel_patches, rename_class
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive


# ---- the independent reader: json, NumPy, zarr and h5py, nothing of patchknn -----------------
def sealed(file):
    value = json.loads(file.read_bytes())
    rest = {key: entry for key, entry in value.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == value["checksum"]
    return value


def texts(arrays, name):
    data, offsets = arrays[f"{name}_bytes"].tobytes(), arrays[f"{name}_offsets"].tolist()
    return [data[a:b].decode() for a, b in pairwise(offsets)]


def shard_arrays(path, head):
    plain = {}
    for name, place in head["arrays"].items():
        file = path / "shards" / place["file"]
        values = np.memmap(file, place["dtype"], "r", place["offset"], tuple(place["shape"]))
        assert hashlib.sha256(values.tobytes()).hexdigest() == place["checksum"]
        plain[name] = values
    container = (
        path / "shards" / (head["uuid"] + {"zarr": ".zarr", "hdf5": ".h5"}[head["container"]])
    )
    with h5py.File(container) if head["container"] == "hdf5" else _group(container) as group:
        for name, values in plain.items():
            np.testing.assert_array_equal(group[name][...], values)
    return plain


def change_parts(path, entry):
    head = sealed(path / "changes" / f"{entry['uuid']}.json")
    data = (path / "changes" / f"{entry['uuid']}.bin").read_bytes()
    arrays = {}
    for name, place in head["arrays"].items():
        count = int(np.prod(place["shape"]))
        values = np.frombuffer(data, place["dtype"], count, place["offset"])
        arrays[name] = values.reshape(place["shape"])
    for number, uuid in enumerate(arrays["shard"]):
        some = slice(arrays["first"][number], arrays["first"][number + 1])
        labels = arrays["label"][some] if head["kind"] == "relabel" else None
        yield uuid.tobytes().hex(), arrays["row"][some], labels, [*head["classes"], None]


def read(path):
    """id → (label, patient, mpp, code, feature) of the newest snapshot."""
    settings = sealed(path / "archive.json")
    newest = max((path / "manifests").glob("[0-9]*.json"), key=lambda file: int(file.stem))
    manifest = sealed(newest)
    assert manifest["archive_id"] == settings["archive_id"]
    gone, labels = set(), {}
    for entry in manifest["changes"]:
        for uuid, rows, new, words in change_parts(path, entry):
            for place, row in enumerate(rows.tolist()):
                if new is None:
                    gone.add((uuid, row))
                else:
                    labels[uuid, row] = words[new[place]]
    found = {}
    for uuid in manifest["shards"]["uuid"]:
        head = sealed(path / "shards" / f"{uuid}.json")
        arrays = shard_arrays(path, head)
        names, patients = texts(arrays, "source_name"), texts(arrays, "source_patient")
        words = [*head["classes"], None]
        for row, source in enumerate(arrays["source"].tolist()):
            if (uuid, row) not in gone:
                x, y = arrays["coords"][row].tolist()
                identity = names[source] if x < 0 else f"{names[source]}@{x}_{y}"
                label = labels.get((uuid, row), words[arrays["label"][row]])
                mpp = float(arrays["source_mpp"][source])
                code, feature = arrays["codes"][row].tobytes(), arrays["features"][row].tobytes()
                found[identity] = (label, patients[source] or None, mpp, code, feature)
    assert len(found) == manifest["rows"]
    return found


# ---- until here ------------------------------------------------------------------------------
class _group:  # noqa: N801  in place of a function that would need contextlib
    def __init__(self, path):
        self.group = zarr.open_group(path, mode="r")

    def __enter__(self):
        return self.group

    def __exit__(self, *_):
        pass


def _ours(path):
    snapshot = open_archive(path)
    found = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        mpp = float("nan") if row.mpp is None else row.mpp
        feature = shard.features[local].tobytes()
        found[row.id] = (row.label, row.patient, mpp, row.code, feature)
    return found


def _same(one, other):
    assert one.keys() == other.keys()
    for identity in one:
        np.testing.assert_equal(one[identity], other[identity])


@pytest.mark.parametrize("compacted", [False, True])
def test_a_reader_made_from_the_page_alone(archive, compacted):
    _same(read(archive), _ours(archive))
    remove_rows(archive, Choice(slides=["t1"], ids=["s1.svs@0_896"]))
    relabel_patches(archive, {"a.png": Correction("NEW"), "b.png": Correction(None)})
    rename_class(archive, "A", "Ä")
    relabel_patches(archive, {"a.png": Correction("B")})
    if compacted:
        compact(archive)
    _same(read(archive), _ours(archive))
    assert len(read(archive)) == 18


def test_codes_follow_from_features_as_the_page_says(archive, bundle):
    from safetensors.numpy import load_file

    heads = load_file(archive / "encoder" / "heads.safetensors")
    weight, bias = (heads[f"hash.{name}"].astype(np.float64) for name in ("weight", "bias"))
    for *_, code, feature in read(archive).values():
        vector = weight @ np.frombuffer(feature, "<f2").astype(np.float64) + bias
        assert np.packbits(vector > 0).tobytes() == code
