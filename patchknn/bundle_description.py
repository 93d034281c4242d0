"""What an encoder bundle says of itself, its linear maps, and whether they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.bundle_files import FORMAT_VERSION
from patchknn.errors import ConflictError, InputError

Array = npt.NDArray[Any]
_NO_ENTRIES: dict[str, Any] = {}
_SINCE_2 = ("crop", "input", "input_dim", "projection", "normalized")


class EncoderDescription(NamedTuple):
    """What ``encoder.json`` says.

    ``input_size`` in pixels, of patches at ``mpp`` µm/px (None: it learnt from plain images);
    ``mean`` and ``std`` per RGB channel of images scaled to [0, 1]; ``feature_dim`` D and ``bits``
    K of the hash map; ``hash_method`` ``learned``, ``itq`` or ``sign``; ``tasks`` one entry
    ``{"name", "classes"}`` per classification head, the first one being the one that answers;
    ``training`` and ``metrics`` are for the reader; ``crop`` is the share of a plain image's short
    side that the encoder takes, in (0, 1]: patches at ``mpp`` are never cropped. No dict in it is
    ever changed.

    ``input`` is what the network takes: ``image``, or ``features`` that are stored, of
    ``input_dim`` per patch (None for images). ``projection`` is None, or what stands between them
    (or the backbone's features) and the features that are searched: ``{"kind": "mlp",
    "input_dim", "hidden", "output_dim"}``. ``normalized`` says that features are of unit length.
    """

    feature_dim: int
    bits: int
    hash_method: str
    backbone: str | None = None
    model_args: dict[str, Any] = _NO_ENTRIES
    timm_version: str | None = None
    input_size: int = 224
    mpp: float | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    class_names: tuple[str, ...] = ()
    tasks: tuple[dict[str, Any], ...] = ()
    precision: str = "float32"
    training: dict[str, Any] = _NO_ENTRIES
    metrics: dict[str, Any] = _NO_ENTRIES
    crop: float = 1.0
    input: str = "image"
    input_dim: int | None = None
    projection: dict[str, Any] | None = None
    normalized: bool = False


class LinearMap(NamedTuple):
    """``y = x @ weight.T + bias``: weight (out, in) float32, bias (out,) float32."""

    weight: Array
    bias: Array

    def __call__(self, values: Array) -> npt.NDArray[np.float64]:
        """Apply to (N, in), in float64 so that the result does not hang on the machine's BLAS."""
        return np.asarray(values, np.float64) @ self.weight.astype(np.float64).T + self.bias


def versioned(description: EncoderDescription) -> dict[str, Any]:
    """The fields with the lowest version that can say them: the same encoder, one fingerprint."""
    fields = description._asdict()
    if all(fields[name] == EncoderDescription._field_defaults[name] for name in _SINCE_2):
        return {"format_version": 1, **{n: v for n, v in fields.items() if n not in _SINCE_2}}
    return {"format_version": FORMAT_VERSION, **fields}


def _wrong_kind(description: EncoderDescription) -> str | None:
    """The entry that is of another kind than it must be: JSON can hold anything."""
    counts = ("feature_dim", "bits", "input_size")
    fits = {
        **{name: _is_count(getattr(description, name)) for name in counts},
        "class_names": _are_texts(description.class_names),
        "tasks": _are_tasks(description.tasks),
        "projection": description.projection is None or isinstance(description.projection, dict),
        "training": isinstance(description.training, dict),
        "metrics": isinstance(description.metrics, dict),
        "model_args": isinstance(description.model_args, dict),
    }
    return next((name for name, is_fit in fits.items() if not is_fit), None)


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_number and int(value) > 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(text, str) for text in value)


def _are_tasks(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(
        isinstance(task, dict)
        and isinstance(task.get("name"), str)
        and _are_texts(task.get("classes"))
        for task in value
    )


def _check_input(directory: Path, description: EncoderDescription) -> None:
    taken, projection = description.input_dim, description.projection
    if description.input == "features":
        fits = taken is not None
        entrance = description.feature_dim if projection is None else projection.get("input_dim")
        fits = fits and entrance == taken
    else:
        fits = description.input == "image" and taken is None
    if projection is not None:
        fits = fits and projection.get("output_dim") == description.feature_dim
    if not fits:
        message = (
            f"The description of {directory} contradicts itself: it takes {description.input} of "
            f"dimension {taken}, projects by {projection} and gives {description.feature_dim} "
            "features."
        )
        raise ConflictError(message)


def check(
    directory: Path,
    description: EncoderDescription,
    hash_map: LinearMap,
    classifiers: Sequence[LinearMap],
) -> None:
    """Raise ConflictError or InputError where a description of ``directory`` cannot be true."""
    wrong = _wrong_kind(description)
    if wrong is not None:
        message = f"The description of {directory} cannot be: {wrong} is not what it must be."
        raise InputError(message)
    _check_input(directory, description)
    if not (isinstance(description.crop, int | float) and 0 < description.crop <= 1):
        message = f"The crop {description.crop} of {directory} is no share of an image's side."
        raise InputError(message)
    bits, dim = description.bits, description.feature_dim
    wanted = [("hash map", hash_map, (bits, dim))]
    # The first classifier's classes are the description's own.
    classes = [len(description.class_names), *(len(t["classes"]) for t in description.tasks[1:])]
    if len(classifiers) > len(classes):
        message = f"{directory} has {len(classifiers)} classifiers and names {len(classes)} tasks."
        raise ConflictError(message)
    for classifier, count in zip(classifiers, classes, strict=False):
        wanted.append(("classifier", classifier, (count, bits)))
    for name, linear, shape in wanted:
        if linear.weight.shape != shape or linear.bias.shape != shape[:1]:
            message = (
                f"The {name} of {directory} is {linear.weight.shape}, and its description says "
                f"{shape}."
            )
            raise ConflictError(message)
        if not (np.isfinite(linear.weight).all() and np.isfinite(linear.bias).all()):
            message = (
                f"The {name} of {directory} holds a value that is not finite: the training went "
                "astray; train again with a smaller learning rate."
            )
            raise InputError(message)
