"""What ``embed`` says of its units, and what it tries again."""

from __future__ import annotations

import json

from PIL import Image

from patchknn.archive import leftovers
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.datasets.entries import iter_entries
from patchknn.datasets.patches import Problem
from patchknn.indexing.units import iter_units
from patchknn.jobs.claims import CLAIMS, Claims
from patchknn.jobs.ledger import Ledger
from patchknn.jobs.records import RECORDS, Records
from patchknn.jobs.units import Outcome


def _status(patchknn, archive, code):
    result = patchknn("jobs", "status", archive)
    assert result.code == code
    told = json.loads(result.out)
    counts = [told[name] for name in ("units", "done", "running", "failed", "pending")]
    return counts, {unit["unit"]: unit for unit in told["failed_units"]}


def _events(archive):
    """What is said last of each unit."""
    records = Records(archive / RECORDS)
    records.refresh()
    return [records.latest(unit) for unit in records.units()]


def test_the_archive_knows_the_names_of_the_folders():
    assert (leftovers.CLAIMS, leftovers.JOBS) == (CLAIMS, RECORDS)


def test_what_failed_is_told_of_and_tried_alone(  # noqa: PLR0917
    embed, patchknn, image_folder, write_slide, tmp_path, rows_of
):
    folder, archive = image_folder(3), tmp_path / "archive"
    (folder / "A" / "bad.png").write_text("no image")
    for seed, name in enumerate(("a.tif", "b.tif", "c.tif")):
        write_slide(f"slides/{name}", seed=seed)
    whole = (tmp_path / "slides" / "b.tif").read_bytes()
    (tmp_path / "slides" / "b.tif").write_bytes(whole[: len(whole) // 2])
    words = (folder, tmp_path / "slides", tmp_path / "gone.tif")
    result, summary = embed(*words)
    assert result.code == 3
    assert (summary["sources"], summary["failed"], summary["skipped"]) == (5, 3, 0)
    for name in ("bad.png", "b.tif", "gone.tif"):
        assert result.err.count(name) == 1
    counts, failed = _status(patchknn, archive, 3)
    assert counts == [5, 2, 0, 3, 0]
    assert {name.partition("-")[0] for name in failed} == {"images", "b.tif", "gone.tif"}
    assert (failed["b.tif"]["attempts"], failed["gone.tif"]["attempts"]) == (2, 1)
    (block,) = (unit for name, unit in failed.items() if name.startswith("images-"))
    assert block["error"].endswith("(1 of 4 failed.)")
    assert block["attempts"] == 2

    (tmp_path / "slides" / "b.tif").write_bytes(whole)
    Image.new("RGB", (32, 32), "red").save(folder / "A" / "bad.png")
    write_slide("gone.tif", seed=9)
    write_slide("slides/new.tif", seed=5)
    result, summary = embed(*words, "--only-failed")
    assert result.code == 0
    assert (summary["sources"], summary["skipped"]) == (3, 3)
    counts, failed = _status(patchknn, archive, 0)
    assert (counts, failed) == ([6, 5, 0, 0, 1], {})
    assert not any(row.startswith("new.tif") for row in rows_of())
    assert embed(*words)[1]["sources"] == 1
    assert _status(patchknn, archive, 0)[0] == [6, 6, 0, 0, 0]


def test_only_failed_needs_an_earlier_run(embed, image_folder):
    result, _ = embed(image_folder(1), "--only-failed")
    assert result.code == 1
    assert "no record tells of an earlier run" in result.err


def test_a_failure_that_passes_is_no_failure(embed, image_folder, tmp_path, monkeypatch):
    from patchknn.indexing import prepare

    calls = []
    describe = prepare.describe_source

    def fails_once(name, *arguments, **options):
        calls.append(name)
        if name.endswith("001.png") and calls.count(name) == 1:
            raise OSError(116, "Stale file handle", name)
        return describe(name, *arguments, **options)

    monkeypatch.setattr(prepare, "describe_source", fails_once)
    result, summary = embed(image_folder(4))
    assert (result.code, result.err) == (0, "")
    assert (summary["sources"], summary["rows"], summary["skipped"]) == (4, 4, 0)


def test_a_conflict_is_not_tried_again(embed, patchknn, image_folder, tmp_path):
    folder = image_folder(2)
    embed(folder)
    Image.new("RGB", (32, 32), "red").save(folder / "A" / "000.png")
    result, summary = embed(folder, "--retries", 5)
    assert (result.code, summary["failed"], summary["skipped"]) == (3, 1, 1)
    _, failed = _status(patchknn, tmp_path / "archive", 3)
    assert [unit["attempts"] for unit in failed.values()] == [1]


def test_what_another_run_was_first_with_is_told_by_its_name(
    embed, image_folder, tmp_path, monkeypatch
):
    embed(image_folder(1, name="begun", first=9))
    theirs, ours, publish = image_folder(1, name="theirs"), image_folder(3), ArchiveWriter.publish
    Image.new("RGB", (32, 32), "red").save(theirs / "A" / "000.png")

    def overtaken(writer):
        monkeypatch.setattr(ArchiveWriter, "publish", publish)
        assert embed(theirs)[0].code == 0
        return publish(writer)

    monkeypatch.setattr(ArchiveWriter, "publish", overtaken)
    result, summary = embed(ours)
    assert (result.code, summary["failed"], summary["sources"], summary["rows"]) == (3, 1, 2, 2)
    assert "different files of one name, 'A/000.png'" in result.err
    (block,) = (event for event in _events(tmp_path / "archive") if event.status == "failed")
    assert (block.detail.endswith("(1 of 3 failed.)"), block.final) == (True, True)
    assert open_archive(tmp_path / "archive").n_rows == 4


def test_what_failed_elsewhere_meanwhile_is_left_and_said(
    embed, write_slide, tmp_path, monkeypatch
):
    """As two processes that run at once see it: one has tried often enough."""
    for seed, name in enumerate(("a.tif", "b.tif")):
        write_slide(f"slides/{name}", seed=seed)
    embed(tmp_path / "slides" / "a.tif")
    archive = tmp_path / "archive"
    plan = Ledger.plan

    def planned(ledger, units):
        plan(ledger, units)
        with Ledger(archive / CLAIMS, archive / RECORDS, "embed", retries=0) as other:
            other.settle(Outcome("b.tif", "failed", "b.tif is bad."))

    monkeypatch.setattr(Ledger, "plan", planned)
    result, summary = embed(tmp_path / "slides", "--retries", 0)
    assert (result.code, summary["sources"], summary["held"]) == (0, 0, 1)
    assert "b.tif: it failed elsewhere" in result.err
    assert "b.tif is bad." in result.err


def test_what_failed_is_found_again_under_another_name(
    embed, patchknn, image_folder, write_slide, tmp_path
):
    """A block is called by all of its images, a tile set that cannot be read by its file."""
    folder = image_folder(3)
    (folder / "A" / "bad.png").write_text("no image")
    write_slide("slides/a.tif")
    patchknn("tile", tmp_path / "slides", "-o", tmp_path / "tiles", "--size", 32, "--mpp", 0.5)
    whole = (tmp_path / "tiles" / "a.h5").read_bytes()
    (tmp_path / "tiles" / "a.h5").write_bytes(whole[: len(whole) // 2])
    words = (folder, tmp_path / "tiles")
    assert embed(*words)[1]["failed"] == 2
    said = "".join(file.read_text() for file in (tmp_path / "archive" / RECORDS).iterdir())
    assert str(tmp_path) not in said
    (tmp_path / "tiles" / "a.h5").write_bytes(whole)
    Image.new("RGB", (32, 32), "red").save(folder / "A" / "bad.png")
    image_folder(1, first=9)
    result, summary = embed(*words, "--only-failed")
    assert (result.code, result.err) == (0, "")
    assert (summary["sources"], summary["failed"]) == (3, 0)


def test_what_failed_and_is_not_named_any_more_is_said(embed, image_folder, tmp_path):
    folder = image_folder(2)
    (folder / "A" / "bad.png").write_text("no image")
    embed(folder)
    (folder / "A" / "bad.png").unlink()
    result, _ = embed(folder, "--only-failed")
    assert "not among these sources any more: A/bad.png; run the same" in result.err


def test_nothing_of_a_unit_is_no_reason_to_keep_it(embed, image_folder, tmp_path, monkeypatch):
    """What failed as a whole is settled at once, before anything is published."""
    held = []
    settle = Ledger.settle

    def watched(ledger, outcome):
        ended = settle(ledger, outcome)
        held.append(len(list((tmp_path / "archive" / CLAIMS).glob("*.[0-9]"))))
        return ended

    monkeypatch.setattr(Ledger, "settle", watched)
    (tmp_path / "bad").mkdir()
    for number in range(4):
        (tmp_path / "bad" / f"{number}.svs").write_text("no slide")
    assert embed(tmp_path / "bad", "--retries", 0)[1]["failed"] == 4
    assert max(held) <= 1


def test_who_has_a_unit_is_running(embed, patchknn, write_slide, tmp_path):
    write_slide("slides/a.tif")
    write_slide("slides/b.tif", seed=1)
    embed(tmp_path / "slides" / "a.tif")
    with Claims(tmp_path / "archive" / CLAIMS) as other:
        other.claim("b.tif")
        embed(tmp_path / "slides")
        assert _status(patchknn, tmp_path / "archive", 0)[0] == [2, 1, 1, 0, 0]
    assert _status(patchknn, tmp_path / "archive", 0)[0] == [2, 1, 0, 0, 1]


def test_slides_come_largest_first_and_images_in_blocks_as_they_come(
    image_folder, write_slide, tmp_path
):
    folder = image_folder(5)
    for name, size in (("small.tif", 128), ("large.tif", 512), ("middle.tif", 256)):
        write_slide(f"data/{name}", size=size)
    listed = []
    names = []
    entries = iter_entries([tmp_path / "nothing.tif", folder])
    units = iter_units(entries, lambda all_: listed.append((list(names), all_)), block=2)
    names.extend(unit.name for unit in units if not isinstance(unit, Problem))
    (problem,) = iter_units(iter_entries([tmp_path / "nothing.tif"]))
    assert isinstance(problem, Problem)
    assert names[-3:] == ["large.tif", "middle.tif", "small.tif"]
    assert [name.partition("-")[0] for name in names[:-3]] == ["images"] * 3
    ((before, all_names),) = listed
    assert all_names == names
    assert before == names[:2]  # the last, incomplete block and the slides are known by then


def test_purging_forgets_what_was_said_of_slides(embed, patchknn, write_slide, tmp_path):
    write_slide("slides/secret.tif")
    write_slide("slides/other.tif", seed=1)
    embed(tmp_path / "slides")
    told = list((tmp_path / "archive" / RECORDS).iterdir())
    assert any("secret" in file.read_text() for file in told)
    archive = tmp_path / "archive"
    assert patchknn("archive", "remove", archive, "--slide", "secret.tif", "--purge").code == 0
    assert not any(b"secret" in f.read_bytes() for f in archive.rglob("*") if f.is_file())


def test_absolute_paths_are_kept_on_request_alone(embed, image_folder, tmp_path):
    folder = image_folder(1)
    (folder / "A" / "bad.png").write_text("no image")
    for archive, options in (("without", ()), ("with", ("--store-paths",))):
        embed(folder, *options, archive=archive)
        said = "".join(f.read_text() for f in (tmp_path / archive / RECORDS).iterdir())
        assert "bad.png is not an image" in said
        assert (str(tmp_path) in said) == (archive == "with")
