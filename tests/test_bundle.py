"""The encoder bundle as NumPy sees it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from patchknn.bundle import copy_bundle, load_backbone, load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.bundle_files import fingerprint_of
from patchknn.errors import ConflictError, DamageError, InputError

_DESCRIPTION = EncoderDescription(
    feature_dim=5,
    bits=16,
    hash_method="learned",
    backbone="resnet18",
    model_args={"pad_type": "same"},
    class_names=("TUM", "STR", "Ä"),
    tasks=({"name": "label", "classes": ["TUM", "STR", "Ä"]},),
    training={"epochs": 3},
)


def _map(seed, *shape):
    generator = np.random.default_rng(seed)
    return LinearMap(
        generator.normal(size=shape).astype(np.float32),
        generator.normal(size=shape[0]).astype(np.float32),
    )


_HASH, _CLASSIFIER = _map(0, 16, 5), _map(1, 3, 16)
_BACKBONE = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(4)}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "deep" / "encoder"
    write_bundle(path, _DESCRIPTION, _HASH, _CLASSIFIER, _BACKBONE)
    return path


def test_what_was_written_is_loaded(folder):
    loaded = load_bundle(folder)
    assert loaded.description == _DESCRIPTION
    assert np.array_equal(loaded.hash_map.weight, _HASH.weight)
    assert np.array_equal(loaded.classifier.bias, _CLASSIFIER.bias)
    backbone = load_backbone(loaded)
    assert set(backbone) == set(_BACKBONE)
    assert np.array_equal(backbone["conv.weight"], _BACKBONE["conv.weight"])
    assert sorted(f.name for f in folder.iterdir()) == [
        "backbone.safetensors",
        "encoder.json",
        "heads.safetensors",
    ]
    assert [f.name for f in folder.parent.iterdir()] == ["encoder"]


def test_codes_and_probabilities_are_those_of_a_literal_loop(folder):
    loaded = load_bundle(folder)
    features = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float16)
    codes = loaded.codes(features)
    probabilities = loaded.probabilities(features)
    for row, feature in enumerate(features.tolist()):
        hashed = []
        for weights, bias in zip(_HASH.weight.tolist(), _HASH.bias.tolist(), strict=True):
            hashed.append(sum(w * x for w, x in zip(weights, feature, strict=True)) + bias)
        bits = "".join("1" if value > 0 else "0" for value in hashed)
        assert bytes(codes[row]) == int(bits, 2).to_bytes(2, "big")
        scores = []
        for weights, bias in zip(_CLASSIFIER.weight, _CLASSIFIER.bias, strict=True):
            terms = zip(weights.tolist(), hashed, strict=True)
            scores.append(sum(w * x for w, x in terms) + float(bias))
        expected = np.exp(scores) / np.exp(scores).sum()
        assert np.allclose(probabilities[row], expected)


def test_probabilities_survive_large_scores_and_none_without_classifier(tmp_path):
    write_bundle(tmp_path / "e", _DESCRIPTION, _HASH)
    assert load_bundle(tmp_path / "e").probabilities(np.ones((1, 5))) is None
    write_bundle(tmp_path / "f", _DESCRIPTION, _HASH, _CLASSIFIER)
    probabilities = load_bundle(tmp_path / "f").probabilities(np.full((1, 5), 1e6))
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)


def test_no_rows_give_no_codes(folder):
    loaded = load_bundle(folder)
    assert loaded.codes(np.zeros((0, 5))).shape == (0, 2)
    assert loaded.probabilities(np.zeros((0, 5))).shape == (0, 3)


@pytest.mark.parametrize("shape", [(5,), (2, 4), (1, 2, 5)])
def test_features_of_another_size_are_refused(folder, shape):
    with pytest.raises(ConflictError, match="which has 5 per patch"):
        load_bundle(folder).codes(np.zeros(shape))


def test_the_fingerprint_is_of_the_content_alone(tmp_path, folder):
    first = load_bundle(folder).fingerprint
    again = write_bundle(tmp_path / "again", _DESCRIPTION, _HASH, _CLASSIFIER, _BACKBONE)
    moved = folder.rename(tmp_path / "moved")
    reordered = dict(reversed(_BACKBONE.items()))
    other_order = write_bundle(tmp_path / "order", _DESCRIPTION, _HASH, _CLASSIFIER, reordered)
    assert first == again == other_order == load_bundle(moved).fingerprint
    changed = {
        write_bundle(tmp_path / "1", _DESCRIPTION, _map(9, 16, 5), _CLASSIFIER, _BACKBONE),
        write_bundle(tmp_path / "2", _DESCRIPTION, _HASH, _map(9, 3, 16), _BACKBONE),
        write_bundle(tmp_path / "3", _DESCRIPTION, _HASH, _CLASSIFIER, {"w": np.ones(2)}),
        write_bundle(tmp_path / "4", _DESCRIPTION, _HASH, _CLASSIFIER),
        write_bundle(
            tmp_path / "5",
            _DESCRIPTION._replace(mean=(0.5, 0.5, 0.5)),
            _HASH,
            _CLASSIFIER,
            _BACKBONE,
        ),
    }
    assert len(changed | {first}) == 6


def test_what_version_1_wrote_is_loaded_and_written_with_the_same_fingerprint(tmp_path):
    weight = np.arange(80, dtype=np.float32).reshape(16, 5)
    hash_map = LinearMap(weight, np.zeros(16, np.float32))
    description = EncoderDescription(5, 16, "learned", "resnet18", class_names=("A", "B"))
    # What patchknn gave before bundles could take features.
    known = "671d4f1d5cadf070fb162382628fc68ac3fb5105820df26ba58dbe6faa70be69"
    assert write_bundle(tmp_path / "e", description, hash_map, backbone={"n": np.array(4)}) == known
    content = json.loads((tmp_path / "e" / "encoder.json").read_bytes())
    assert content["format_version"] == 1
    assert not {"input", "input_dim", "projection"} & set(content)
    assert content.pop("fingerprint") == known
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == known
    loaded = load_bundle(tmp_path / "e")
    assert loaded.fingerprint == known
    assert loaded.description == description
    assert loaded.description.input == "image"


_PROJECTION = {"kind": "mlp", "input_dim": 9, "hidden": 7, "output_dim": 5}


@pytest.mark.parametrize(
    "changes",
    [
        {"projection": _PROJECTION},
        {"backbone": None, "input": "features", "input_dim": 9, "projection": _PROJECTION},
        {"backbone": None, "input": "features", "input_dim": 5},
    ],
)
def test_what_goes_in_is_kept_as_version_2(tmp_path, changes):
    description = _DESCRIPTION._replace(**changes)
    fingerprint = write_bundle(tmp_path / "e", description, _HASH, _CLASSIFIER, _BACKBONE)
    loaded = load_bundle(tmp_path / "e")
    assert loaded.description == description
    assert loaded.fingerprint == fingerprint
    assert json.loads((tmp_path / "e" / "encoder.json").read_bytes())["format_version"] == 2
    assert loaded.has_network
    assert loaded.has_backbone == (description.input == "image")


@pytest.mark.parametrize(
    "changes",
    [
        {"input": "sound"},
        {"input": "features"},
        {"input_dim": 5},
        {"input": "features", "input_dim": 6},
        {"input": "features", "input_dim": 8, "projection": _PROJECTION},
        {"projection": _PROJECTION | {"output_dim": 4}},
    ],
)
def test_a_description_that_contradicts_itself_is_refused(tmp_path, changes):
    with pytest.raises(ConflictError, match="contradicts itself"):
        write_bundle(tmp_path / "e", _DESCRIPTION._replace(**changes), _HASH, _CLASSIFIER)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_without_backbone_is_the_same_encoder(folder, tmp_path):
    loaded = load_bundle(folder)
    copy_bundle(loaded, tmp_path / "light", backbone=False)
    copy_bundle(loaded, tmp_path / "full")
    light, full = load_bundle(tmp_path / "light"), load_bundle(tmp_path / "full")
    assert light.fingerprint == full.fingerprint == loaded.fingerprint
    assert (light.has_backbone, full.has_backbone) == (False, True)
    with pytest.raises(InputError, match="has no backbone"):
        load_backbone(light)


def test_a_bundle_is_replaced_whole_and_anything_else_is_not(folder, tmp_path, monkeypatch):
    before = load_bundle(folder).fingerprint
    with pytest.raises(ConflictError, match="is not an encoder bundle"):
        write_bundle(tmp_path, _DESCRIPTION, _HASH)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", full)
        with pytest.raises(OSError, match="No space"):
            write_bundle(folder, _DESCRIPTION, _map(3, 16, 5))
    assert load_bundle(folder).fingerprint == before
    after = write_bundle(folder, _DESCRIPTION, _map(3, 16, 5))
    assert load_bundle(folder).fingerprint == after != before
    assert not load_bundle(folder).has_backbone
    assert [f.name for f in folder.parent.iterdir()] == ["encoder"]


def test_maps_that_do_not_fit_or_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ConflictError, match="hash map"):
        write_bundle(tmp_path / "e", _DESCRIPTION, _map(0, 8, 5))
    with pytest.raises(ConflictError, match="classifier"):
        write_bundle(tmp_path / "e", _DESCRIPTION, _HASH, _map(0, 2, 16))
    broken = LinearMap(_HASH.weight * np.float32("nan"), _HASH.bias)
    with pytest.raises(InputError, match="not finite"):
        write_bundle(tmp_path / "e", _DESCRIPTION, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["encoder.json", "heads.safetensors", "backbone.safetensors"])
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "delete"])
def test_damage_is_noticed(folder, name, how):
    file = folder / name
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[-6] ^= 1
    elif how == "cut":
        del data[len(data) // 2 :]
    else:
        data.clear()
    file.write_bytes(data)
    if how == "delete":
        file.unlink()
    with pytest.raises((InputError, DamageError)) as error:
        load_backbone(load_bundle(folder))
    assert str(folder) in str(error.value)


def test_an_edited_description_is_noticed_and_a_newer_one_refused(folder, tmp_path):
    file = folder / "encoder.json"
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps({**content, "input_size": 1}))
    with pytest.raises(DamageError, match="does not match its fingerprint"):
        load_bundle(folder)
    file.write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(InputError, match="of format 99"):
        load_bundle(folder)
    file.write_text(json.dumps({**content, "format": "something"}))
    with pytest.raises(InputError, match="does not describe a patchknn encoder"):
        load_bundle(folder)
    del content["feature_dim"], content["fingerprint"]
    content["fingerprint"] = fingerprint_of(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="feature_dim"):
        load_bundle(folder)


def test_what_is_no_bundle_is_named(tmp_path, folder):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="is not an encoder bundle"):
            load_bundle(path)
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(InputError, match="is not an encoder bundle"):
        load_bundle(folder)
    with pytest.raises(ConflictError, match="is not an encoder bundle"):
        write_bundle(folder, _DESCRIPTION, _HASH)


def test_loading_imports_no_torch(folder):
    program = f"""
import sys
from pathlib import Path
import numpy
from patchknn.bundle import load_backbone, load_bundle
bundle = load_bundle(Path({str(folder)!r}))
bundle.codes(numpy.ones((1, 5))), bundle.probabilities(numpy.ones((1, 5))), load_backbone(bundle)
print("torch" in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.stdout.strip() == "False", finished.stderr


def test_a_bundle_from_before_crop_loads_whole_with_its_own_fingerprint(folder):
    file = folder / "encoder.json"
    content = json.loads(file.read_bytes())
    assert content["format_version"] == 1
    assert "crop" not in content  # nor anything else that came later
    del content["fingerprint"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["fingerprint"] = hashlib.sha256(canonical.encode()).hexdigest()
    file.write_text(json.dumps(content))
    loaded = load_bundle(folder)
    assert loaded.description == _DESCRIPTION
    assert loaded.fingerprint == content["fingerprint"]


def test_a_crop_is_kept_counts_for_the_fingerprint_and_is_of_a_newer_format(tmp_path):
    cropped = _DESCRIPTION._replace(crop=224 / 256)
    fingerprint = write_bundle(tmp_path / "e", cropped, _HASH)
    assert load_bundle(tmp_path / "e").description == cropped
    assert fingerprint != write_bundle(tmp_path / "f", _DESCRIPTION, _HASH)
    # Who does not know the key would embed other pixels without a word.
    assert json.loads((tmp_path / "e" / "encoder.json").read_bytes())["format_version"] == 2


@pytest.mark.parametrize("crop", [0.0, -1.0, 1.5, "all", None])
def test_a_crop_that_is_no_share_is_refused(tmp_path, crop):
    with pytest.raises(InputError, match="no share of an image's side"):
        write_bundle(tmp_path / "e", _DESCRIPTION._replace(crop=crop), _HASH)
    assert list(tmp_path.iterdir()) == []
