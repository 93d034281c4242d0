"""Archives of a hostile author, every checksum right: refused in one sentence, or harmless.

What is harmless is up to a reader to see; here it is that every command says one sentence or does
its work, that none crashes, hangs, takes all memory or shows where in the code it failed, and
that no other file is shown.
"""

from __future__ import annotations

import re
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

# What ends otherwise as yet: group, case, one that stands for them, the command that shows it.
KNOWN = (
    (
        "link",
        r"(a manifest|a segment's JSON|a shard's JSON) without end",
        "a manifest without end",
        "list",
    ),
    ("run", r"a record behind a link without end", "a record behind a link without end", "log"),
    ("manifest", r"a record of another kind", "a record of another kind", "list"),
    ("manifest", r"kind of a change is (a list|an object)", "kind of a change is a list", "list"),
    (
        "manifest",
        r"time is (?!control|a path|a lone)",
        "time is a number",
        "log",
    ),
    (
        "manifest",
        r"run_id is (?!control|a path|a lone|nothing)",
        "run_id is a list",
        "log",
    ),
    ("shard", r"deep JSON|run_id is (a list|an object)", "run_id is a list", "gc"),
    ("shard", r"one more array at a giant place", "one more array at a giant place", "verify"),
    ("shard", r"one more array without end", "one more array without end", "verify"),
    (
        "shard",
        r"one more file with a lone surrogate",
        "one more file with a lone surrogate",
        "list",
    ),
    ("change", r"one more array of (garbage|objects)", "one more array of objects", "verify"),
    ("change", r"rename of (nothing|one)", "rename of nothing", "list"),
    ("segment", r"files with a (zero byte|lone surrogate)", "files with a zero byte", "list"),
    (
        "encoder",
        r"class_names is (a fraction|a number|giant|negative|nothing|true)",
        "class_names is a number",
        "info",
    ),
    ("encoder", r"tasks is (a path|an object|control)", "tasks is a path", "info"),
    ("encoder", r"projection is (?!an object|nothing)", "projection is a path", "info"),
)


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


def _is_known(group, name):
    return any(group == one and re.match(pattern, name) for one, pattern, _, _ in KNOWN)


@pytest.mark.parametrize("group", GROUPS)
def test_whatever_an_entry_says_a_command_says_one_sentence_or_works(
    taken, long_faults, tally, group
):
    names = [name for name in GROUPS[group] if not _is_known(group, name)]
    problems = []
    for name in names if long_faults else Random(group).sample(names, _CASES):
        problems += [f"{name}: {problem}" for problem in taken(group, name)]
        tally["cases"] += 1
    assert not problems, "\n".join(problems)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="see KNOWN")
@pytest.mark.parametrize(
    ("group", "name", "command"),
    [pytest.param(group, name, command, id=name) for group, _, name, command in KNOWN],
)
def test_what_is_known_to_end_otherwise(taken, group, name, command):
    assert taken(group, name, command, timeout=4) == []
