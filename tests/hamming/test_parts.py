"""The tables of multi-index hashing, against sorting by a part's bits as text."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.hamming import parts as parts_module
from patchknn.hamming.packing import unpack_bits, words
from patchknn.hamming.parts import build_parts, empty_parts, part_widths


@pytest.mark.parametrize("n_bytes", [2, 6, 8, 9, 16, 31, 128])
@pytest.mark.parametrize("block", [None, 50])
def test_parts_hold_each_code_under_its_bits(n_bytes, block, monkeypatch):
    monkeypatch.setattr(parts_module, "_WORTH_INDEXING", 2)
    if block:  # so small that values are built block by block, and some values span several
        monkeypatch.setattr(parts_module, "_BLOCK_CODES", block)
        monkeypatch.setattr(parts_module, "_BLOCK_ENTRIES", block)
    codes = np.random.default_rng(n_bytes).integers(0, 256, (700, n_bytes), np.uint8)
    codes[:400, :-2] = codes[0, :-2]
    codes = np.unique(codes, axis=0)
    bits, count = unpack_bits(codes), 8 * n_bytes
    for number, part in enumerate(build_parts(count, words(codes))):
        text = ["".join(map(str, row)) for row in bits.astype(int)]
        key = [row[part.first_bit : part.first_bit + part.width] for row in text]
        order = sorted(range(len(codes)), key=lambda row: (key[row], row))
        found = np.arange(len(codes)) if part.order is None else part.order
        assert found.tolist() == order
        assert (part.order is None) == (number == 0)
        starts = [0]
        for value in range(1 << part.width):
            starts.append(starts[-1] + key.count(format(value, f"0{part.width}b")))
        assert part.bounds.tolist() == starts
        if part.window is not None:
            for entry, row in enumerate(order):
                cyclic = text[row] if count <= 64 else (text[row] * 2)[part.first_bit :]
                assert part.window[entry] == int(cyclic[:64].ljust(64, "0"), 2)


@pytest.mark.parametrize("bits", [8, 16, 24, 32, 48, 64, 72, 128, 1024])
@pytest.mark.parametrize("n_codes", [0, 1, 5000, 10**6, 10**8])
def test_parts_are_disjoint_and_their_bounds_small(bits, n_codes):
    n_codes = min(n_codes, 1 << bits)
    found = part_widths(bits, n_codes)
    end = 0
    for first_bit, width in found:
        assert first_bit >= end
        assert width >= 1
        end = first_bit + width
    assert end <= bits
    assert sum(1 << width for _, width in found) <= n_codes
    assert not found or found[0][0] == 0
    assert bool(found) == (n_codes >= 5000)


def test_parts_are_written_into_given_arrays():
    codes = np.sort(np.random.default_rng(0).integers(0, 2**63, (9000, 1), np.uint64), axis=0)
    out = empty_parts(64, 9000)
    assert build_parts(64, codes, out) is out
    for given, built in zip(out, build_parts(64, codes), strict=True):
        assert (given.bounds == built.bounds).all()
        if built.order is not None:
            assert (given.order == built.order).all()
            assert (given.window == built.window).all()
