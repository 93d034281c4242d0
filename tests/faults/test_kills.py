"""Processes killed by SIGKILL while they change an archive: what was acknowledged stays.

What a process told before it died is done; of what it was doing, all is there or nothing.
"""

from __future__ import annotations

from random import Random

import pytest
from operations import OPERATIONS, World
from small_archives import listed
from steps import some
from wholeness import assert_nothing_left, assert_one_of, assert_whole, files_that_tell_of

_ROUNDS, _LONG_ROUNDS = 12, 200
_STEPS = 1  # of each operation beside the last, where not all are tried
_EMBED_STEPS = 100  # in a long run too: it takes a second each
_WEIGHTS = {"add": 4, "embed": 4, "remove": 2, "relabel": 2, "rename": 1, "compact": 2, "gc": 2}


class _Pace:
    """How long an operation takes, as far as was measured: within that a round is cut."""

    def __init__(self):
        self._seconds = dict.fromkeys(OPERATIONS, 0.2)

    def learn(self, name, seconds):
        self._seconds[name] = (self._seconds[name] + 2 * seconds) / 3

    def some_instant(self, names, random):
        return random.uniform(0, 1.5 * sum(self._seconds[name] for name in names))


def _planned(world, random, names):
    """These operations in a row, each with what the archive holds before it and after it."""
    asked, states = [], [world.rows]
    for name in names:
        arguments = OPERATIONS[name].plan(world, states[-1], random)
        if arguments is not None:
            asked.append([name, arguments])
            states.append(OPERATIONS[name].after(world, states[-1], arguments))
    return asked, states


def _learn(world, pace, reply, asked, states):
    """What was acknowledged: how many operations; it becomes what the world holds."""
    began = 0.0
    for at, event in reply.events:
        if event[0] == "begin":
            began = at
        elif event[0] == "done":
            _, number, snapshot = event
            pace.learn(asked[number][0], at - began)
            world.settle(snapshot, states[number + 1])
    return sum(event[0] == "done" for event in reply.told)


def test_processes_killed_at_random_instants_lose_nothing(
    copied, other, encoding_children, long_faults, tally
):
    random = Random(7)
    path = copied()
    world, pace = World(path, other), _Pace()
    # First each once and to its end, to learn its pace.
    asked, states = _planned(world, random, list(OPERATIONS))
    reply = encoding_children.ask("operate", {"archive": str(path), "operations": asked})
    assert _learn(world, pace, reply, asked, states) == len(asked), reply
    assert_one_of(path, [world.rows])
    for _ in range(_LONG_ROUNDS if long_faults else _ROUNDS):
        weights = [_WEIGHTS.get(name, 1) for name in OPERATIONS]
        names = random.choices(list(OPERATIONS), weights, k=random.randint(1, 3))
        asked, states = _planned(world, random, names)
        instant = pace.some_instant([name for name, _ in asked], random)
        reply = encoding_children.ask(
            "operate", {"archive": str(path), "operations": asked}, kill_after=instant
        )
        assert reply.error is None, (asked, reply.error)
        assert reply.code in {0, -9}, (asked, reply.code, reply.err)
        done = _learn(world, pace, reply, asked, states)
        begun = sum(event[0] == "begin" for event in reply.told)
        number, rows = assert_one_of(path, states[done : done + 2])
        tally["rounds"] += 1
        tally["operations acknowledged"] += done
        when = "after" if done == len(asked) else "during" if begun > done else "between"
        tally[f"killed {when}" if reply.code else "ended before the kill"] += 1
        if when == "during":
            name = asked[done][0]
            tally[f"killed in {name}"] += 1
            if rows != states[done]:
                tally["published, not acknowledged"] += 1
        world.settle(number, rows)
        older = random.choice(sorted(world.kept))
        assert listed(path, older) == world.kept[older]
        if random.random() < 0.5:
            assert_nothing_left(path)
        else:
            tally["went on beside leftovers"] += 1
    assert_nothing_left(path)
    assert world.rows == assert_one_of(path, [world.rows])[1]


def _most_steps(name):
    return _EMBED_STEPS if name.startswith("embed") else 10**6


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_process_killed_at_any_step_has_done_all_or_nothing(  # noqa: PLR0917
    copied, other, children_for, long_faults, tally, name
):
    random = Random(name)
    children = children_for(name)
    path = copied()
    world = World(path, other)
    operation = OPERATIONS[name]
    arguments = operation.plan(world, world.rows, random)
    after = operation.after(world, world.rows, arguments)

    def run(at):
        path = copied()
        fault = {"what": "kill", "at": at}
        asked = {"archive": str(path), "operations": [[name, arguments]], "fault": fault}
        return path, children.ask("operate", asked)

    path, reply = run(0)
    assert reply.code == 0, reply
    assert_one_of(path, [after])
    steps = reply.told[-1][1]
    assert steps > 5
    tally["steps"] = steps
    for at in some(steps, random, _most_steps(name) if long_faults else _STEPS):
        path, reply = run(at)
        assert reply.code == -9, (at, reply)
        before = max(world.kept)
        number, rows = assert_one_of(path, [world.rows, after])
        tally["killed"] += 1
        tally["of these published"] += number > before
        if not name.startswith(("purge", "embed")) or at % 2:  # else it meets what is left
            assert_nothing_left(path)
        # The same again is done as if nothing had been.
        again = {"archive": str(path), "operations": [[name, arguments]]}
        reply = children.ask("operate", again)
        assert reply.code == 0, (at, reply)
        assert_one_of(path, [operation.after(world, rows, arguments)])
        for slide in arguments.get("slides", ()) if name == "purge" else ():
            assert files_that_tell_of(path, slide) == []


def test_a_purge_killed_while_it_deletes_the_index_leaves_no_half_segment(copied, other, children):
    path = copied()
    world = World(path, other)
    arguments = OPERATIONS["purge"].plan(world, world.rows, Random("purge"))

    def run(at):
        path = copied()
        fault = {"what": "kill", "at": at}
        asked = {"archive": str(path), "operations": [["purge", arguments]], "fault": fault}
        return path, children.ask("operate", asked)

    path, reply = run(0)
    last = reply.told[-1][1]
    for at in range(last - 30, last):
        path, reply = run(at)
        assert reply.code == -9
        assert_whole(path)
