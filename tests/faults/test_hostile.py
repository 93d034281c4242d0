"""Archives of a hostile author, every checksum right: refused in one sentence, or harmless.

What is harmless is up to a reader to see; here it is that every command says one sentence or does
its work, that none crashes, hangs, takes all memory or shows where in the code it failed, and
that no other file is shown.
"""

from __future__ import annotations

import shutil
from random import Random

import numpy as np
import pytest
from forge import Forge
from hostile_cases import GROUPS
from rich_archive import rich_archive

_CASES = 2  # of each group, where not all are tried
_MEMORY = 5 << 29
_NOT_SAID = ("unexpected", "Traceback", "out of memory")


def _commands(archive, feature, identity):
    path = str(archive)
    return [
        ["archive", "info", path],
        ["archive", "list", path, "--format", "ndjson"],
        ["archive", "log", path, "--format", "table"],
        ["archive", "log", path, "--labels"],
        ["archive", "verify", path],
        ["query", path, str(feature), "--format", "ndjson"],
        ["query", path, "--id", identity, "--format", "table"],
        ["archive", "gc", path, "--dry-run"],
        ["archive", "rollback", path, "4", "--dry-run"],
        # These write, where they are not refused.
        ["archive", "index", path],
        ["archive", "relabel", path, "--rename", "A=Q"],
        ["archive", "gc", path, "--older-than", "0", "--keep", "3"],
        ["archive", "compact", path],
        ["archive", "verify", path],
    ]


def _problems(reply, commands):
    """What is wrong with how these commands ended."""
    if reply.error is not None:
        yield reply.error[2]
    told = [event for event in reply.told if event[0] == "exit"]
    if len(told) < len(commands):
        how = "hung" if reply.hung else f"ended with {reply.code}"
        yield f"{' '.join(commands[len(told)])}: {how} {reply.err[-500:]}"
    for _, number, code, out, err in told:
        words = " ".join(commands[number])
        said = sum(line.startswith("patchknn: ") for line in err.splitlines())
        if code not in {0, 1, 2, 3} or any(word in err for word in _NOT_SAID):
            yield f"{words}: {code} {err[:300]}"
        elif code in {1, 2} and said != 1:
            yield f"{words}: not one sentence: {err[:300]}"
        elif "root:" in out + err:
            yield f"{words}: shows another file: {out[:200]} {err[:200]}"


@pytest.fixture(scope="module")
def bases(worn, tmp_path_factory):
    """By the name of a group the archive that is harmed, an id of it, and features to ask for."""
    folder = tmp_path_factory.mktemp("bases")
    rich = rich_archive(folder)
    found = {}
    for name in GROUPS:
        path, dim, identity = worn / "archive", 12, "1.svs@448_896"
        if name == "segment":
            path, dim, identity = rich, 128, "s6.svs@0_6"
        feature = folder / f"{name}.npy"
        np.save(feature, np.random.default_rng(0).normal(size=(3, dim)))
        found[name] = (path, identity, feature)
    return found


@pytest.fixture
def taken(bases, children, folder):
    """``taken(group, name)``: what is wrong with how the commands take a case."""

    def take(group, name, only=None, timeout=120):
        base, identity, feature = bases[group]
        place = folder / "copy"
        shutil.rmtree(place, ignore_errors=True)
        path = shutil.copytree(base, place / "archive")
        GROUPS[group][name](Forge(path))
        commands = _commands(path, feature, identity)
        if only is not None:
            commands = [words for words in commands if only in words[:2]][:1]
        asked = {"archive": str(path), "commands": commands, "memory": _MEMORY}
        reply = children.ask("commands", asked, timeout=timeout)
        return list(_problems(reply, commands))

    return take


@pytest.mark.parametrize("group", GROUPS)
def test_whatever_an_entry_says_a_command_says_one_sentence_or_works(
    taken, long_faults, tally, group
):
    names = list(GROUPS[group])
    problems = []
    for name in names if long_faults else Random(group).sample(names, _CASES):
        problems += [f"{name}: {problem}" for problem in taken(group, name)]
        tally["cases"] += 1
    assert not problems, "\n".join(problems)
