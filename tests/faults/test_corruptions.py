"""Random damage to every kind of file: harmless, noticed in one sentence, or named by verify.

Nothing crashes, nothing else than patchknn's own errors reaches a reader, and no answer is wrong
that ``verify`` does not know of.
"""

from __future__ import annotations

import shutil
from collections import Counter
from random import Random

import pytest
from corruptions import draw, remove_stale
from observed import INFORMAL, is_error, is_refusal, observe
from rich_archive import CHANGED, rich_archive

from patchknn.archive.verify import verify_archive

_COUNT, _LONG_COUNT = 60, 500
_BATCH = 20


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rich")
    path = rich_archive(folder)
    assert verify_archive(path) == []
    return folder


@pytest.fixture(scope="module")
def expected(rich):
    found = observe(rich / "archive", CHANGED)
    assert not any(map(is_error, found.values())), found
    return found


def _problem(corruption, result, expected):
    """What is wrong with how a corruption was taken, or None."""
    verified, learnt = result["verify"], result["learnt"]
    if is_error(verified) and not is_refusal(verified):
        return f"verify: {verified}"
    for part, value in learnt.items():
        if is_error(value):
            if not is_refusal(value):
                return f"{part}: {value}"
            if not verified:
                return f"{part} is refused and verify finds nothing: {value}"
            if len(value["text"].splitlines()) != 1:
                return f"{part} says more than one line: {value}"
        elif value != expected[part] and part not in INFORMAL and not verified:
            return f"{part} is another, and verify finds nothing"
    return None


def _outcome(result, expected):
    if any(map(is_error, result["learnt"].values())):
        return "noticed"
    same = all(result["learnt"][part] == expected[part] for part in expected if part != "log")
    if not result["verify"]:
        return "harmless, unnamed"
    return "harmless, named" if same else "wrong, named"


def test_random_corruptions_are_harmless_or_named(  # noqa: PLR0917
    rich, expected, children, folder, long_faults, tally
):
    random = Random(11)
    pristine = rich / "archive"
    count = _LONG_COUNT if long_faults else _COUNT
    wanted = [draw(pristine, random) for _ in range(count)]
    problems, kinds = [], Counter()
    path, aside = folder / "archive", folder / "aside"
    place = 0
    while place < len(wanted):
        shutil.rmtree(path, ignore_errors=True)
        remove_stale(aside)
        shutil.copytree(pristine, path)
        batch = wanted[place : place + _BATCH]
        asked = {"archive": str(path), "aside": str(aside), "corruptions": batch, "older": CHANGED}
        reply = children.ask("corrupt", asked, timeout=240)
        assert reply.error is None, reply.error
        results = [event for event in reply.told if event[0] == "result"]
        for (_, number, result), corruption in zip(results, batch, strict=False):
            assert batch[number] == corruption
            outcome = _outcome(result, expected)
            kinds[f"{corruption['kind']}: {outcome}"] += 1
            tally[outcome] += 1
            problem = _problem(corruption, result, expected)
            if problem is not None:
                problems.append((corruption, problem))
        place += len(results)
        if len(results) < len(batch):
            problems.append((batch[len(results)], f"crashed: {reply.code} {reply.err}"))
            place += 1
    for kind, count in sorted(kinds.items()):
        tally[kind] = count
    assert not problems, "\n\n".join(f"{c}\n    {p}" for c, p in problems)
