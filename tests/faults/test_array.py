"""An array of tasks started at once, some of them killed: the archive is that of one process."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest
from embedding import command, image_list, listed_slide
from small_archives import new_archive
from wholeness import assert_nothing_left, assert_whole

from patchknn.archive.snapshot import open_archive

_TASKS, _KILLED, _UNITS = 16, 4, 48
_STEPS = 60  # a unit takes more, from its claim to its publication
_ROUNDS, _LONG_ROUNDS = 1, 40


@pytest.fixture
def sources(folder):
    """Slides of one to three tiles, a unit each, and images, which are one together."""
    parts = [
        listed_slide(folder / f"{n}", f"{n} ü.svs", ["A", None, "B"][: 1 + n % 3], n)
        for n in range(_UNITS - 1)
    ]
    images = {"1.png": "A", "2.png": None, "ü.png": "E"}
    return [*parts, image_list(folder / "images", images, _UNITS)]


def _rows(path):
    snapshot, rows = open_archive(path), {}
    for number in range(len(snapshot)):
        row = snapshot.row(number)
        shard, local = snapshot.shard_of(number)
        rows[row.id] = (shard.features[local].tobytes(), row.code, row.label, row.patient)
    assert len(rows) == len(snapshot)
    return rows


def test_sixteen_tasks_of_which_four_are_killed_give_the_archive_of_one(  # noqa: PLR0917
    folder, sources, encoding_children, long_faults, tally, request
):
    (folder / "alone").mkdir()
    alone = new_archive(folder / "alone")
    given = [part.argument for part in sources]
    asked = {"archive": str(alone), "command": command(alone, given)}
    assert encoding_children.ask("command", asked).told[0] == ["exit", 0]
    expected = _rows(alone)
    assert expected.keys() == {identity for part in sources for identity in part.rows}
    for number in range(_LONG_ROUNDS if long_faults else _ROUNDS):
        random = Random(f"array {number}")
        # Claims are not more than units, but for those of killed tasks: each of these comes.
        claims = sorted(random.sample(range(_UNITS // 2), _KILLED))
        kills = [(claim, random.randrange(_STEPS)) for claim in claims]
        place = folder / f"round {number}"
        place.mkdir()
        path = new_archive(place)
        words = command(path, given, "--publish-every", "0.5")
        asked = {"archive": str(path), "command": words, "count": _TASKS, "kills": kills}
        reply = encoding_children.ask("array", asked, timeout=240)
        told = (number, kills, reply)
        assert reply.error is None, told
        (result,) = reply.told
        ended = Counter(tuple(codes) for codes in result["codes"])
        assert ended == {(0,): _TASKS - _KILLED, (-9, 0): _KILLED}, told
        assert _rows(path) == expected, told
        assert_whole(path)
        status = encoding_children.ask(
            "commands", {"archive": str(path), "commands": [["jobs", "status", str(path)]]}
        ).told[-1]
        counts = json.loads(status[3])
        assert (counts["done"], counts["failed"], counts["pending"]) == (_UNITS, 0, 0), told
        tally["claims"] += sum(result["claims"])
        tally["tasks with a unit"] += sum(map(bool, result["claims"]))
        assert_nothing_left(path)
