"""Losses run in float32 or better, and autocast does not reach inside."""

from __future__ import annotations

import pytest
import torch

from patchknn.losses import precision
from patchknn.losses.precision import in_full_precision


@in_full_precision
def _seen(*args, **kwargs):
    return args, kwargs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_by_place_and_by_name(dtype):
    half, labels = torch.ones(2, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    (first, second), named = _seen(half, labels, third=half, name="kept")
    assert first.dtype == named["third"].dtype == torch.float32
    assert second is labels
    assert named["name"] == "kept"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_wide_enough_stays_as_it_is(dtype):
    wide = torch.ones(2, dtype=dtype)
    assert _seen(wide)[0][0] is wide


@pytest.mark.parametrize("by_name", [False, True])
def test_autocast_is_off_on_the_device_of_the_tensors(monkeypatch, by_name):
    devices = []
    real = torch.autocast

    def noting(device, **options):
        devices.append((device, options))
        return real("cpu", **options)

    monkeypatch.setattr(precision.torch, "autocast", noting)
    elsewhere = torch.empty(2, device="meta")
    _ = _seen(rows=elsewhere) if by_name else _seen(3, elsewhere)
    assert devices == [("meta", {"enabled": False})]


def test_a_product_inside_keeps_its_precision():
    rows = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outside = rows @ rows
        inside = in_full_precision(lambda x: x @ x)(rows)
    assert outside.dtype == torch.bfloat16
    assert torch.equal(inside, rows @ rows)
