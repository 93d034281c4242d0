"""Many processes at one archive: no row is lost or doubled, and readers see whole snapshots."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from small_archives import listed, new_archive
from wholeness import assert_nothing_left, assert_whole

from patchknn.archive.manifests import manifest_numbers
from patchknn.archive.snapshot import open_archive

_PROGRAM = Path(__file__).resolve().parent / "many.py"
_SHORT = (3, 2, ["adder", "remover", "relabeller", "compactor"])
_LONG = (
    *(120, 4),
    ["adder", "adder", "adder", "remover", "remover", "relabeller", "compactor", "merger"],
)


def test_writers_and_readers_at_once(folder, other, long_faults, tally):
    path = new_archive(folder)
    seconds, readers, writers = _LONG if long_faults else _SHORT
    words = [str(path), str(other), str(seconds), str(readers), *writers]
    finished = subprocess.run(
        [sys.executable, str(_PROGRAM), *words], capture_output=True, text=True, timeout=800
    )
    assert finished.returncode == 0, finished.stderr
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    errors = [result["error"] for result in results if "error" in result]
    assert not errors, "\n".join(errors)
    assert len(results) == readers + len(writers)
    expected, published = {}, 0
    for result in results:
        expected.update(result["rows"])
        published += result["published"]
        if result["kind"] == "reader":
            tally["looks of readers"] += result["looks"]
            tally["snapshots seen"] += result["snapshots"]
        else:
            tally[f"{result['kind']}: done"] += result["done"]
    assert listed(path) == expected
    numbers = manifest_numbers(path)
    assert numbers == list(range(published + 1))
    assert all(result["done"] > 0 for result in results if "done" in result)
    assert tally["looks of readers"] >= readers
    tally["snapshots"] = len(numbers)
    tally["rows"] = len(open_archive(path))
    assert_whole(path)
    assert_nothing_left(path)
