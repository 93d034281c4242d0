"""Texts as bytes and offsets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.archive.strings import (
    OptionalStringTable,
    StringTable,
    offsets_fit,
    pack_blobs,
    pack_strings,
)

# File names: any text, and bytes that are no UTF-8 as Python shows them.
_TEXTS = st.lists(
    st.text(max_size=12)
    | st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    min_size=1,
    max_size=12,
)


@given(_TEXTS)
def test_texts_round_trip(texts):
    data, offsets = pack_strings(texts)
    assert offsets_fit(data, offsets)
    table = StringTable(data, offsets)
    assert list(table) == texts
    assert table.take(np.arange(len(texts))[::-1]) == texts[::-1]
    assert [table[i] for i in range(-len(table), 0)] == texts
    assert table.distinct() == set(texts)
    assert list(OptionalStringTable(table)) == [text or None for text in texts]


@given(_TEXTS, st.data())
def test_equal_to_finds_every_entry(texts, data):
    text = data.draw(st.sampled_from([*texts, "absent name"]))
    found = StringTable(*pack_strings(texts)).equal_to(text)
    assert found.tolist() == [i for i, other in enumerate(texts) if other == text]


def test_empty_entries_alone_and_indexes_out_of_range():
    table = OptionalStringTable(StringTable(*pack_strings([None, ""])))
    assert table.distinct() == {None}
    assert len(table) == 2
    with pytest.raises(IndexError):
        table[2]


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3, 2], [0, 9], [-1, 2]])
def test_offsets_out_of_range_are_noticed(offsets):
    data, _ = pack_blobs([b"ab", b"c"])
    assert not offsets_fit(data, np.array(offsets))
