"""The settings of a run from a command line: what was said, then the preset, then defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from patchknn.errors import UsageError

if TYPE_CHECKING:
    import typer

    from patchknn.training.settings import TrainingSettings


def settings_of(context: typer.Context) -> TrainingSettings:
    """The settings that a command line asks for, checked.

    A preset, and the encoder that ``--from`` names, fill in what was neither given as a flag nor
    as a variable nor in a settings file. Raises UsageError and InputError.
    """
    from patchknn.encoder.backbones import parse_model_args
    from patchknn.training.checks import check
    from patchknn.training.presets import PRESETS
    from patchknn.training.settings import TrainingSettings

    values = dict(context.params)
    said = {name for name in values if _was_said(context, name)}
    values |= {
        "model_args": parse_model_args(values["model_arg"] or ()),
        "mean": _colour("--mean", values["mean"], least=0.0),
        "std": _colour("--std", values["std"], least=1e-6),
        "task_weights": _task_weights(values["task_weight"] or ()),
    }
    if values["from_encoder"] is not None:
        values |= _of_encoder(values, said)
    for name, value in PRESETS.get(values["preset"] or "", {}).items():
        if name not in said and not _answered_otherwise(name, said):
            values[name] = value
    known = {field.name for field in fields(TrainingSettings)}
    settings = TrainingSettings(**{name: v for name, v in values.items() if name in known})
    if values["labels"] is not None and not settings.features:
        message = "--labels belongs to --features; images carry theirs in a manifest or a folder."
        raise UsageError(message)
    check(settings)
    return settings


def _was_said(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in {"DEFAULT"}


def _answered_otherwise(name: str, said: set[str]) -> bool:
    """Whether a preset's way to start is overruled by another one."""
    starts = {"pretrained", "weights", "from_encoder", "features"}
    if name == "pretrained":
        return bool(said & starts)
    return name == "backbone" and bool(said & {"from_encoder", "features"})


def _of_encoder(values: dict[str, Any], said: set[str]) -> dict[str, Any]:
    from patchknn.training.assembly import read_origin

    bundle = read_origin(values["from_encoder"], features=values["features"])
    origin, mlp = bundle.description, bundle.description.projection
    own = {"size": origin.input_size, "crop": origin.crop, "mpp": origin.mpp, "bits": origin.bits}
    brought = ["mean", "std"]
    if values["features"] and mlp is not None:
        brought += ["hidden", "output_dim"]
        own |= {"hidden": mlp["hidden"], "output_dim": mlp["output_dim"]}
    for name in brought:
        if name in said:
            option = f"--{name.replace('_', '-')}"
            message = f"--from brings its own {option}; leave {option} away."
            raise UsageError(message)
    return {name: value for name, value in own.items() if name not in said}


def _task_weights(texts: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            message = f"--task-weight {text} is not of the form NAME=WEIGHT."
            raise UsageError(message)
    return weights


def _colour(option: str, text: str | None, *, least: float) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(least <= value <= 10 for value in values):
        message = f"{option} {text} is not R,G,B or one number, of images scaled to [0, 1]."
        raise UsageError(message)
    return values[0], values[1], values[2]
