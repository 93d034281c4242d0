"""Shards by column are the shards entry by entry."""

from __future__ import annotations

import json

import pytest

from patchknn.archive.shard_list import ShardEntry, ShardList

_ENTRIES = [ShardEntry(f"{n:032x}", n + 1, n, f"{n:064x}") for n in range(5)]


def test_a_list_is_its_entries():
    shards = ShardList(_ENTRIES)
    assert (len(shards), list(shards), shards[1], shards[-1]) == (
        *(5, _ENTRIES, _ENTRIES[1]),
        _ENTRIES[4],
    )
    assert list(shards[1:3]) == _ENTRIES[1:3]
    assert shards.rows == [1, 2, 3, 4, 5]
    assert shards.positions[_ENTRIES[3].uuid] == 3
    assert ShardList(_ENTRIES[:2]).followed_by(_ENTRIES[2:]) == shards
    assert shards != ShardList(_ENTRIES[::-1])
    assert list(ShardList()) == []


def test_what_is_followed_stays_as_it_was():
    first = ShardList(_ENTRIES[:2])
    first.followed_by(_ENTRIES[2:])
    assert list(first) == _ENTRIES[:2]


@pytest.mark.parametrize("entries", [[], _ENTRIES])
def test_json_and_back(entries):
    text = json.dumps(ShardList(entries).as_json())
    assert ShardList.from_json(json.loads(text)) == ShardList(entries)
    objects = json.dumps([entry._asdict() for entry in entries])
    assert ShardList.from_json(json.loads(objects)) == ShardList(entries)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [1]},
        {"uuid": "0" * 5},
        {"checksum": None},
    ],
)
def test_columns_that_are_none_are_refused(change):
    with pytest.raises(TypeError):
        ShardList.from_json({**ShardList(_ENTRIES).as_json(), **change})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rows", 0),
        ("rows", True),
        ("rows", 1.0),
        ("rows", 1 << 32),
        ("sources", 10**30),
        ("sources", -1),
        ("sources", "1"),
        ("uuid", "0" * 31),
        ("uuid", "G" * 32),
        ("uuid", f"{1:032x}"),
        ("uuid", 10**31),
        ("checksum", "0" * 63 + "\n"),
        ("checksum", None),
    ],
)
def test_what_cannot_be_is_not_plausible(name, value):
    assert ShardList(_ENTRIES).is_plausible
    columns = ShardList(_ENTRIES).as_json()
    columns[name] = [value, *columns[name][1:]]
    assert not ShardList.from_json(columns).is_plausible
