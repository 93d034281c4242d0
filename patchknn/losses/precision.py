"""Losses run in float32 or better, whatever the network around them runs in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def in_full_precision(loss: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a loss: half-precision tensors become float32, autocast is off inside.

    In float16 a squared distance overflows from d = 256, and log1p loses what separates codes.
    float64 stays float64.
    """

    @functools.wraps(loss)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = (*args, *kwargs.values())
        device = next((value.device.type for value in given if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            widened: Any = loss
            return widened(  # type: ignore[no-any-return]
                *(_widen(value) for value in args),
                **{name: _widen(value) for name, value in kwargs.items()},
            )

    return wrapped


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
