"""Rows sorted and gathered as NumPy would."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.archive import ordering
from patchknn.archive.ordering import gathered, order_by


def _columns(kind, n, generator):
    random = generator.integers(0, 1 << 63, n).astype(np.uint64) * np.uint64(2)
    few = generator.integers(0, 3, n)
    return {
        "all different": (random, few),
        "few": (few.astype(np.uint64), generator.integers(-5, 5, n), few),
        "one value": (np.full(n, 1 << 63, np.uint64), generator.integers(0, n, n), few),
        "equal first bits": (random >> np.uint64(40) | np.uint64(1 << 63), random, few),
        "differing in last bits": (np.uint64(1 << 63) + few.astype(np.uint64), few, few[::-1]),
        "from end to end": (np.where(few == 1, np.uint64(2**64 - 1), np.uint64(0)), few),
        "signed": (generator.integers(-(1 << 62), 1 << 62, n), few),
        "narrow": (generator.integers(-3, 3, n).astype(np.int32), generator.integers(0, 9, n)),
        "in order": (np.arange(n, dtype=np.int64), few),
    }[kind]


@pytest.mark.parametrize("n", [0, 1, 100, 4095, 4096, 4097, 70_000])
@pytest.mark.parametrize(
    "kind",
    [
        *("all different", "few", "one value", "equal first bits", "differing in last bits"),
        *("from end to end", "signed", "narrow", "in order"),
    ],
)
def test_the_order_is_that_of_lexsort(kind, n):
    columns = _columns(kind, n, np.random.default_rng(n))
    found = order_by(columns)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.lexsort(columns[::-1]))


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
@pytest.mark.parametrize("dtype", ["<f2", "|u1", "<i8"])
def test_rows_are_gathered_block_by_block(monkeypatch, shape, dtype):
    monkeypatch.setattr(ordering, "_BLOCK_BYTES", 64)
    values = np.random.default_rng(0).integers(0, 99, (500, *shape)).astype(dtype)
    for order in (np.random.default_rng(1).permutation(500), np.array([7, 7, 0]), np.arange(0)):
        np.testing.assert_array_equal(gathered(values, order), values[order])
    negative = np.array([-1, 3, -500])
    np.testing.assert_array_equal(gathered(values, negative), values[negative])
    with pytest.raises(IndexError):
        gathered(values, np.array([500]))
    assert gathered(values[::-2], np.arange(3)).tobytes() == values[::-2][:3].tobytes()
