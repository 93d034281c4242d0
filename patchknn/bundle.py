"""The encoder bundle as NumPy sees it: what it is, its hash map, its classifier, its fingerprint.

A bundle is a directory: ``encoder.json``, ``heads.safetensors`` (linear maps that turn features
into hash vectors and hash vectors into class scores) and, where there is a network,
``backbone.safetensors``. Querying stored features needs the first two only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.bundle_description import (
    Array,
    EncoderDescription,
    LinearMap,
    check,
    versioned,
)
from patchknn.bundle_files import (
    BACKBONE_FILE,
    DESCRIPTION_FILE,
    HEADS_FILE,
    damaged,
    fingerprint_of,
    read_description,
)
from patchknn.errors import ConflictError, DamageError, InputError
from patchknn.files import (
    errors_named,
    fsync_file,
    read_json,
    swap_directory,
    temporary_beside,
    write_json,
)

_CODED_ROWS = 4096


class Bundle(NamedTuple):
    """A loaded bundle without its backbone."""

    directory: Path
    description: EncoderDescription
    hash_map: LinearMap
    classifiers: tuple[LinearMap, ...]
    fingerprint: str

    @property
    def classifier(self) -> LinearMap | None:
        """That of the first task, which is the one that answers."""
        return self.classifiers[0] if self.classifiers else None

    @property
    def has_backbone(self) -> bool:
        """Whether images can be embedded with this copy."""
        return self.description.input == "image" and self.has_network

    @property
    def has_network(self) -> bool:
        """Whether this copy holds the network's tensors, whatever it takes."""
        return (self.directory / BACKBONE_FILE).is_file()

    def hash_vectors(self, features: Array) -> npt.NDArray[np.float64]:
        """Features (N, D) → hash vectors (N, K) before the sign.

        Raises ConflictError where D is not the bundle's.
        """
        return self.hash_map(self._fitting(features))

    def codes(self, features: Array) -> npt.NDArray[np.uint8]:
        """Features (N, D) → packed codes (N, K/8) uint8, bit i being 1 where element i > 0."""
        features = self._fitting(features)
        codes = np.empty((len(features), self.description.bits // 8), np.uint8)
        for start in range(0, len(features), _CODED_ROWS):  # in float64 all would be much to hold
            block = slice(start, start + _CODED_ROWS)
            codes[block] = np.packbits(self.hash_map(features[block]) > 0, axis=1)
        return codes

    def probabilities(self, features: Array) -> npt.NDArray[np.float64] | None:
        """Features (N, D) → class probabilities (N, C), or None without a classifier."""
        if self.classifier is None:
            return None
        scores = self.classifier(self.hash_vectors(features))
        scores -= scores.max(axis=1, keepdims=True)
        exponentials: npt.NDArray[np.float64] = np.exp(scores)
        total: npt.NDArray[np.float64] = exponentials.sum(axis=1, keepdims=True)
        return np.divide(exponentials, total)

    def _fitting(self, features: Array) -> npt.NDArray[Any]:
        features = np.asarray(features)
        expected = self.description.feature_dim
        if features.ndim != 2 or features.shape[1] != expected:
            message = (
                f"Features of shape {features.shape} do not fit the encoder in {self.directory}, "
                f"which has {expected} per patch."
            )
            raise ConflictError(message)
        return features


def write_bundle(
    directory: Path,
    description: EncoderDescription,
    hash_map: LinearMap,
    classifier: LinearMap | Sequence[LinearMap] | None = None,
    backbone: Mapping[str, Array] | None = None,
) -> str:
    """Write a bundle as a whole (temporary directory, then rename) and return its fingerprint.

    ``classifier`` is that of the only task, or those of all; ``backbone`` holds the network's
    tensors by name. Raises ConflictError where the directory
    exists and is not an encoder bundle, or the maps do not fit the description, InputError where
    a weight is not finite or ``crop`` no share; a bundle already there is replaced.
    """
    classifiers = _as_several(classifier)
    check(directory, description, hash_map, classifiers)
    if directory.exists() and not (directory / DESCRIPTION_FILE).is_file():
        message = f"{directory} exists and is not an encoder bundle; choose another -o."
        raise ConflictError(message)
    heads = {"hash.weight": hash_map.weight, "hash.bias": hash_map.bias}
    for number, each in enumerate(classifiers):
        name = _classifier_name(number)
        heads |= {f"{name}.weight": each.weight, f"{name}.bias": each.bias}
    heads = {name: np.ascontiguousarray(value, np.float32) for name, value in heads.items()}
    digests = {"heads": tensor_digest(heads)}
    if backbone is not None:
        digests["backbone"] = tensor_digest(backbone)
    content = {
        "format": "patchknn-encoder",
        **versioned(description),
        "digests": digests,
    }
    content = json.loads(json.dumps(content, allow_nan=False))
    content["fingerprint"] = fingerprint_of(content)

    import shutil

    from safetensors.numpy import save_file

    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(directory)
    temporary.mkdir()
    try:
        with errors_named(directory, temporary):
            save_file(heads, temporary / HEADS_FILE)
            if backbone is not None:
                # ascontiguousarray would make counters of shape () into arrays of one.
                contiguous = {name: np.asarray(v, order="C") for name, v in backbone.items()}
                save_file(contiguous, temporary / BACKBONE_FILE)
            write_json(temporary / DESCRIPTION_FILE, content)
            for file in temporary.iterdir():
                fsync_file(file)
            swap_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return str(content["fingerprint"])


def copy_bundle(bundle: Bundle, directory: Path, *, backbone: bool = True) -> None:
    """Copy a bundle as a whole into ``directory``, with or without its backbone."""
    import shutil

    temporary = temporary_beside(directory)
    temporary.mkdir(parents=True)
    try:
        with errors_named(directory, temporary):
            for name in (DESCRIPTION_FILE, HEADS_FILE, BACKBONE_FILE):
                source = bundle.directory / name
                if source.is_file() and (backbone or name != BACKBONE_FILE):
                    shutil.copyfile(source, temporary / name)
                    fsync_file(temporary / name)
            swap_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_bundle(directory: Path) -> Bundle:
    """Open a bundle without reading its backbone.

    Raises InputError where it is no bundle or of a newer format, DamageError where its content
    is not what its fingerprint says.
    """
    content = read_description(directory)
    heads = _load_heads(directory / HEADS_FILE)
    if content["digests"].get("heads") != tensor_digest(heads):
        raise damaged(directory)
    try:
        known = EncoderDescription._fields
        values = {name: _frozen(value) for name, value in content.items() if name in known}
        description = EncoderDescription(**values)
        hash_map = LinearMap(heads["hash.weight"], heads["hash.bias"])
        names = [_classifier_name(number) for number in range(max(1, len(description.tasks)))]
        classifiers = tuple(
            LinearMap(heads[f"{name}.weight"], heads[f"{name}.bias"])
            for name in names
            if f"{name}.weight" in heads
        )
    except (TypeError, KeyError) as error:
        message = f"{directory} is not a complete encoder bundle: {error} is missing."
        raise InputError(message) from None
    check(directory, description, hash_map, classifiers)
    return Bundle(directory, description, hash_map, classifiers, str(content["fingerprint"]))


def load_backbone(bundle: Bundle) -> dict[str, Array]:
    """The backbone's tensors by name, checked against the bundle's digest.

    Raises InputError where the bundle has none, DamageError where they changed.
    """
    file = bundle.directory / BACKBONE_FILE
    if not file.is_file():
        part = "backbone" if bundle.description.input == "image" else "network"
        message = f"{bundle.directory} has no {part}: give --encoder a bundle that has one."
        raise InputError(message)
    tensors = load_safetensors(file)
    expected = read_json(bundle.directory / DESCRIPTION_FILE)["digests"].get("backbone")
    if tensor_digest(tensors) != expected:
        message = f"{file} is damaged: its weights do not match the bundle's fingerprint."
        raise DamageError(message)
    return tensors


def tensor_digest(tensors: Mapping[str, Array]) -> str:
    """SHA-256 over name, dtype, shape and little-endian bytes of tensors in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        value = value.astype(value.dtype.newbyteorder("<"), copy=False)
        header = json.dumps([name, value.dtype.str, list(value.shape)])
        digest.update(header.encode() + b"\n")
        digest.update(value.tobytes())
    return digest.hexdigest()


def _as_several(classifier: LinearMap | Sequence[LinearMap] | None) -> Sequence[LinearMap]:
    if classifier is None:
        return ()
    # A LinearMap is a sequence too: of its two arrays.
    return (classifier,) if isinstance(classifier, LinearMap) else classifier


def _classifier_name(number: int) -> str:
    # The first one has the name that it had when there was one task only.
    return f"classifier.{number}" if number else "classifier"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _load_heads(file: Path) -> dict[str, Array]:
    if not file.is_file():
        message = f"{file.parent} is not a complete encoder bundle: it has no {HEADS_FILE}."
        raise InputError(message)
    return load_safetensors(file)


def load_safetensors(file: Path) -> dict[str, Array]:
    """The tensors of a file by name; raises DamageError where it is none of safetensors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, ValueError, KeyError) as error:
        message = f"{file} is not a readable safetensors file: {error}"
        raise DamageError(message) from None
