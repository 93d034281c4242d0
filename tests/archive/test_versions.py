"""Archives of an earlier version are read and go on; those of a later one are refused."""

from __future__ import annotations

import json

import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.counting import totals_of
from patchknn.archive.remove import remove_rows
from patchknn.archive.sealed import sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.errors import InputError

_SINCE_2 = (
    *("rows_removed", "sources_removed", "rows_relabelled", "label_history"),
    *("records", "purged", "totals"),
)


def _reseal(file, **changes):
    value = json.loads(file.read_text())
    del value["checksum"]
    value.update(changes)
    file.write_bytes(sealed_text({k: v for k, v in value.items() if v is not ...}))


def _as_before_3(file, version, without=()):
    columns = json.loads(file.read_text())["shards"]
    entries = [
        dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=True)
    ]
    _reseal(file, format_version=version, shards=entries, **dict.fromkeys(without, ...))


def test_manifests_of_version_1_are_read_and_continued(archive):
    before = totals_of(open_archive(archive))
    for file in (archive / "manifests").glob("*.json"):
        _as_before_3(file, 1, without=("changes", *_SINCE_2))
    snapshot = open_archive(archive)
    assert snapshot.manifest.totals is None
    assert totals_of(snapshot) == before
    assert verify_archive(archive) == []
    remove_rows(archive, Choice(slides=["s1.svs"]))
    manifest = open_archive(archive).manifest
    assert (manifest.rows, manifest.rows_removed) == (19, 5)
    assert manifest.totals is not None
    assert verify_archive(archive) == []


def test_manifests_of_version_2_are_read_and_continued(archive):
    remove_rows(archive, Choice(slides=["s1.svs"]))
    before = open_archive(archive).manifest
    for file in (archive / "manifests").glob("*.json"):
        _as_before_3(file, 2)
    assert open_archive(archive).manifest == before
    assert verify_archive(archive) == []
    assert remove_rows(archive, Choice(slides=["t1"])).number == before.number + 1
    versions = [
        json.loads(file.read_text())["format_version"]
        for file in sorted((archive / "manifests").glob("*.json"))
    ]
    assert versions == [2] * (before.number + 1) + [3]
    assert verify_archive(archive) == []


@pytest.mark.parametrize("folder", ["", "manifests"])
def test_a_newer_format_is_refused_with_a_sentence(archive, folder):
    remove_rows(archive, Choice(slides=["s1.svs"]))
    for file in (archive / folder).glob("*.json"):
        _reseal(file, format_version=99)
    with pytest.raises(InputError, match=r"format 99; this patchknn reads .*: update it\."):
        open_archive(archive)
