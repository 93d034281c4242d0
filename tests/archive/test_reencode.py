"""Another hash over the same features: ids, labels, removals and history go along."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from patchknn.archive.carry import carry_over
from patchknn.archive.choice import Choice
from patchknn.archive.history import label_history
from patchknn.archive.listing import list_rows
from patchknn.archive.reencode import rehash, same_features
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import LinearMap
from patchknn.errors import ConflictError


@pytest.fixture
def other_hash(bundle, tmp_path):
    """The same network with 24 other bits."""
    generator = np.random.default_rng(5)
    weight = generator.normal(size=(24, bundle.description.feature_dim)).astype(np.float32)
    backbone = load_file(bundle.directory / "backbone.safetensors")

    def made(**changes):
        folder = tmp_path / "other"
        description = bundle.description._replace(bits=24, **changes)
        hash_map = LinearMap(weight, np.zeros(24, np.float32))
        write_bundle(folder, description, hash_map, None, backbone)
        return load_bundle(folder)

    return made


def _features(path):
    snapshot = open_archive(path)
    found = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        found[row.id] = (row.label, row.patient, row.mpp, shard.features[local].tobytes())
    return found


def test_rows_are_hashed_anew_from_what_is_stored(archive, other_hash, tmp_path):
    remove_rows(archive, Choice(ids=["s1.svs@0_896"]))
    relabel_patches(archive, {"a.png": Correction("NEW", "Ann", "seen")})
    old, new = open_archive(archive), other_hash()
    assert same_features(old.bundle(), new)
    path = tmp_path / "new"
    assert rehash(old, path, new) == (23, 0)
    carry_over(old, path, action="reencode")
    assert _features(path) == _features(archive)
    for shard in open_archive(path).shards:
        np.testing.assert_array_equal(shard.codes, new.codes(np.array(shard.features)))
    (event,) = label_history(path)
    assert (event.id, event.new, event.by, event.reason) == ("a.png", "NEW", "Ann", "seen")
    assert verify_archive(path) == []
    number = open_archive(path).number
    assert rehash(old, path, new) == (0, 23)
    carry_over(old, path, action="reencode")
    assert open_archive(path).number == number


@pytest.mark.parametrize("changes", [{"input_size": 96}, {"crop": 0.9}, {"normalized": True}])
def test_pictures_prepared_otherwise_give_other_features(archive, other_hash, changes):
    assert not same_features(open_archive(archive).bundle(), other_hash(**changes))


def test_another_network_gives_other_features(archive, make_bundle, tmp_path):
    other = make_bundle(tmp_path / "stranger", seed=3)
    assert not same_features(open_archive(archive).bundle(), other)


def test_an_archive_of_another_encoder_is_not_added_to(archive, other_hash):
    with pytest.raises(ConflictError, match="holds rows of the encoder"):
        rehash(open_archive(archive), archive, other_hash())
