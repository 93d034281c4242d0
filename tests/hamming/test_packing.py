"""Packing and distances against the plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchknn.errors import UsageError
from patchknn.hamming.packing import (
    check_bits,
    code_from_hex,
    code_to_hex,
    pack_bits,
    sort_keys,
    sort_order,
    unpack_bits,
    words,
)

_WIDTHS = st.sampled_from([1, 2, 3, 4, 6, 7, 8, 9, 16, 24, 128])
_CODES = st.tuples(st.integers(0, 20), _WIDTHS).flatmap(lambda shape: arrays.arrays("u1", shape))


@given(_CODES)
def test_bits_survive_packing(codes):
    assert np.array_equal(pack_bits(unpack_bits(codes)), codes)


def test_the_first_bit_is_the_highest_of_the_first_byte():
    bits = np.zeros((1, 16), bool)
    bits[0, [0, 15]] = True
    assert pack_bits(bits).tolist() == [[0x80, 0x01]]


@given(_CODES)
def test_words_keys_and_order_are_those_of_the_bytes(codes):
    texts = [bytes(code) for code in codes]
    order = sort_order(codes)
    assert order.tolist() == sorted(range(len(texts)), key=lambda row: (texts[row], row))
    keys = sort_keys(codes[order])
    assert (keys[1:] >= keys[:-1]).all()
    assert len(np.unique(keys)) == len(set(texts))
    assert np.bitwise_count(words(codes)).sum() == unpack_bits(codes).sum()


@given(arrays.arrays("u1", st.integers(1, 128)))
def test_hexadecimal_text_round_trips(code):
    text = code_to_hex(code)
    assert len(text) == 2 * len(code)
    assert np.array_equal(code_from_hex(text), code)


@pytest.mark.parametrize("bits", [0, 4, 12, 47, 1032, -8])
def test_bits_outside_the_format_are_refused(bits):
    with pytest.raises(UsageError, match="multiples of 8"):
        check_bits(bits)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        pack_bits(np.zeros((2, 7), bool))
