"""A source embedded twice: the same is skipped, another one refused, or put in its place."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest

from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive


def test_a_changed_file_takes_the_place_of_what_it_was(embed, image_folder, tmp_path):
    folder = image_folder(4)
    embed(folder)
    before = open_archive(tmp_path / "archive")
    row = before.row(before.locate("A/000.png"))
    shutil.copy(folder / "B" / "001.png", folder / "A" / "000.png")
    result, summary = embed(folder)
    assert (result.code, summary["failed"], summary["skipped"]) == (3, 1, 3)
    assert "--replace" in result.err
    result, summary = embed(folder, "--replace")
    counted = {k: summary[k] for k in ("rows", "sources", "skipped", "replaced", "failed")}
    assert counted == {"rows": 1, "sources": 1, "skipped": 3, "replaced": 1, "failed": 0}
    after = open_archive(tmp_path / "archive")
    assert after.number == before.number + 1  # gone and there in one step
    assert (len(after), after.n_sources) == (4, 4)
    new, twin = (after.row(after.locate(name)) for name in ("A/000.png", "B/001.png"))
    assert new.code == twin.code
    assert open_archive(tmp_path / "archive", before.number).row(row.row).code == row.code
    result, summary = embed(folder, "--replace")
    assert (summary["rows"], summary["skipped"], summary["replaced"]) == (0, 4, 0)
    assert verify_archive(tmp_path / "archive") == []


def test_a_file_that_was_only_touched_is_the_same(embed, image_folder, tmp_path):
    folder = image_folder(2)
    embed(folder)
    os.utime(folder / "A" / "000.png", (1, 1))
    result, summary = embed(folder)
    assert (result.code, summary["skipped"]) == (0, 2)


@pytest.mark.parametrize("asked", [False, True])
def test_no_absolute_path_is_stored_unless_asked(embed, image_folder, tmp_path, asked):
    folder = image_folder(2)
    (folder / "bad.png").write_text("text")
    elsewhere = tmp_path / "far" / "away"
    elsewhere.mkdir(parents=True)
    result, _ = embed(folder, *(["--store-paths"] if asked else []), archive="far/away/archive")
    assert result.code == 3
    archive = elsewhere / "archive"
    told = [
        f for f in archive.rglob("*") if f.is_file() and str(tmp_path).encode() in f.read_bytes()
    ]
    assert bool(told) == asked
    paths = {source.path for source in open_archive(archive).sources()}
    names = {"A/000.png", "B/001.png"}
    assert paths == ({str(folder / name) for name in names} if asked else names)
    (record,) = (archive / "runs").glob("*.json")
    told = json.loads(record.read_text())
    assert "bad.png" in told["failures"][0]["error"]


def test_what_lies_beside_the_archive_is_found_when_both_have_moved(embed, image_folder, tmp_path):
    embed(image_folder(2))
    (tmp_path / "moved").mkdir()
    for name in ("archive", "data"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    paths = [source.path for source in open_archive(tmp_path / "moved" / "archive").sources()]
    assert sorted(paths) == [
        str(tmp_path / "moved" / "data" / name) for name in ("A/000.png", "B/001.png")
    ]


@pytest.mark.parametrize(("private", "mask"), [(True, 0o077), (False, 0o027)])
def test_modes_follow_the_umask_or_are_the_owners_alone(
    embed, image_folder, tmp_path, private, mask
):
    before = os.umask(0o027)
    try:
        embed(image_folder(2), *(["--private"] if private else []))
    finally:
        os.umask(before)
    archive = tmp_path / "archive"
    for file in (archive, *archive.rglob("*")):
        assert stat.S_IMODE(file.lstat().st_mode) & mask == 0, file
    if not private:
        assert (archive / "archive.json").stat().st_mode & 0o040
