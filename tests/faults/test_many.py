"""Many processes at one archive: no row is lost or doubled, and readers see whole snapshots."""

from __future__ import annotations

import pytest
from small_archives import listed, new_archive
from wholeness import assert_nothing_left, assert_whole

from patchknn.archive.manifests import manifest_numbers
from patchknn.archive.snapshot import open_archive

_SHORT = (3, 2, ["embedder", "remover", "relabeller", "compactor"])
_LONG = (
    *(120, 4),
    ["embedder", "embedder", "embedder", "remover", "remover", "relabeller", "compactor", "merger"],
)
_SHARED = (1, 1, ["sharer", "sharer"])
_SHARED_LONG = (60, 2, ["sharer", "sharer", "sharer", "sharer", "compactor", "remover"])


@pytest.mark.parametrize(
    ("short", "long"), [(_SHORT, _LONG), (_SHARED, _SHARED_LONG)], ids=["each its own", "shared"]
)
def test_writers_and_readers_at_once(  # noqa: PLR0917
    folder, other, encoding_children, long_faults, tally, short, long
):
    path = new_archive(folder)
    seconds, readers, writers = long if long_faults else short
    asked = {"archive": str(path), "other": str(other), "seconds": seconds}
    asked |= {"readers": readers, "writers": writers}
    reply = encoding_children.ask("at once", asked, timeout=800)
    assert (reply.error, reply.code) == (None, 0), reply
    results = reply.told
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
            for what in ("left to others", "held by others"):
                tally[what] += result[what]
    assert listed(path) == expected
    numbers = manifest_numbers(path)
    assert numbers == list(range(published + 1))
    assert all(result["done"] > 0 for result in results if "done" in result)
    assert tally["looks of readers"] >= readers
    tally["snapshots"] = len(numbers)
    tally["rows"] = len(open_archive(path))
    assert_whole(path)
    assert_nothing_left(path)
