"""``embed`` killed while it publishes unit by unit: each is there or not, and the rest follows."""

from __future__ import annotations

from random import Random

import pytest
from embedding import command, image_list, listed_slide, summary_of, tiled_slide
from small_archives import listed
from steps import some
from wholeness import assert_nothing_left, assert_one_of

_STEPS, _LONG_STEPS = 2, 150  # and the last


@pytest.fixture
def parts(folder):
    """Four units in the order in which they are done: images, then what has most patches."""
    return [
        image_list(folder / "1", {"new ü.png": "A", "new 2.png": None, "new 3.png": "E"}, 4),
        listed_slide(folder / "2", "new 1.svs", ["A", None, "B"], 1),
        listed_slide(folder / "3", "new 3.svs", ["E"], 3),
        tiled_slide(folder / "4", "new 2.svs", "A", 2),
    ]


@pytest.fixture
def killed(copied, parts, encoding_children):
    """``killed(at)``: a copy of the archive, the reply of what was killed at that step, and what
    the archive must hold after each of its publications."""

    def kill(at):
        path = copied()
        states = [listed(path)]
        for part in parts:
            states.append({**states[-1], **part.rows})
        words = command(path, [part.argument for part in parts], "--publish-every", "0")
        asked = {"archive": str(path), "command": words, "publications": True}
        fault = {"what": "kill", "at": at}
        return path, encoding_children.ask("command", {**asked, "fault": fault}), states

    return kill


def _published(reply):
    return sum(event[0] == "published" for event in reply.told)


def test_each_unit_is_there_or_not_and_the_same_command_adds_the_rest(
    killed, parts, encoding_children, long_faults, tally
):
    path, reply, states = killed(0)
    assert (reply.code, _published(reply)) == (0, len(parts)), reply
    assert_one_of(path, states[-1:])
    steps = reply.told[-1][1]
    sources = [len({identity.partition("@")[0] for identity in part.rows}) for part in parts]
    for at in some(steps, Random("unit by unit"), _LONG_STEPS if long_faults else _STEPS):
        path, reply, states = killed(at)
        assert reply.code == -9, (at, reply)
        done = _published(reply)
        _, rows = assert_one_of(path, states[done : done + 2])
        there = states.index(rows)
        tally["killed"] += 1
        tally["units published"] += there
        words = command(path, [part.argument for part in parts])
        again = encoding_children.ask("command", {"archive": str(path), "command": words})
        assert again.told[0] == ["exit", 0], (at, again)
        counts = summary_of(again.err)
        assert counts["skipped"] == sum(sources[:there]), (at, counts)
        assert counts["sources"] == sum(sources[there:]), (at, counts)
        assert (counts["failed"], counts["held"]) == (0, 0), (at, counts)
        assert_one_of(path, states[-1:])
        assert_nothing_left(path)
