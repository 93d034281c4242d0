"""Files, folders and lists become named slides."""

from __future__ import annotations

import pytest

from patchknn.errors import InputError
from patchknn.slides.listing import list_slides, source_name, stem_of


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_slides_and_images_below_it_by_their_relative_names(tmp_path):
    _touch(tmp_path, "b.svs", "a/x.png", "a/.hidden.svs", "notes.txt", ".claims/y.png", "a/é😐.tif")
    _touch(tmp_path, "tiles/b/1_2.png")
    entries = list_slides([tmp_path], exclude=tmp_path / "tiles")
    assert [entry.name for entry in entries] == ["a/x.png", "a/é😐.tif", "b.svs"]
    assert all(entry.path == tmp_path / entry.name for entry in entries)


def test_a_folder_without_slides_is_one_sentence(tmp_path):
    _touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match="holds no slide"):
        list_slides([tmp_path])


def test_a_file_by_itself_has_one_name_wherever_the_command_is_started(tmp_path, monkeypatch):
    _touch(tmp_path, "here/a.svs", "there/b.svs")
    assert source_name(tmp_path / "here" / "a.svs", tmp_path) == "here/a.svs"
    assert source_name(tmp_path / "here" / "a.svs", tmp_path / "there") == "a.svs"
    monkeypatch.chdir(tmp_path / "here")
    names = [entry.name for entry in list_slides(["a.svs", "../there/b.svs", "gone.svs", "a.svs"])]
    assert names == ["a.svs", "b.svs", "gone.svs"]
    monkeypatch.chdir(tmp_path)
    assert [entry.name for entry in list_slides(["here/a.svs", "there/b.svs"])] == names[:2]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_list_carries_names_mpp_patients_labels_and_annotations(tmp_path, suffix):
    comma = "," if suffix == ".csv" else "\t"
    rows = [
        ["path", "name", "mpp", "patient", "label", "annotations"],
        ["s/a.svs", "first", "0.25", "P1", "TUM", "marks/a.xml"],
        ["s/b.svs", "", "", "", "", ""],
    ]
    path = tmp_path / f"list{suffix}"
    path.write_text("\n".join(comma.join(row) for row in rows))
    first, second = list_slides([path])
    assert (first.name, first.mpp, first.patient, first.label) == ("first", 0.25, "P1", "TUM")
    assert first.path == tmp_path / "s" / "a.svs"
    assert first.annotations == tmp_path / "marks" / "a.xml"
    assert (second.name, second.mpp, second.label) == ("s/b.svs", None, None)


def test_lists_that_cannot_be_read_say_what_they_lack(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("slide,mpp\na.svs,0.5\n")
    with pytest.raises(InputError, match=r"list\.csv has no column 'path'"):
        list_slides([path])
    path.write_text("path,mpp\na.svs,half\n")
    with pytest.raises(InputError, match="line 2: mpp is 'half'"):
        list_slides([path])
    path.write_text("path,mpp\n,0.5\n")
    with pytest.raises(InputError, match="line 2: the path is empty"):
        list_slides([path])


def test_one_dicom_series_is_one_slide(tmp_path):
    header = bytes(132) + b"\x20\x00\x0e\x00UI\x08\x00"
    for name, series in [("0.dcm", b"1.2.3.4\0"), ("1.dcm", b"1.2.3.4\0"), ("2.dcm", b"1.2.3.5\0")]:
        (tmp_path / name).write_bytes(header + series)
    (tmp_path / "3.dcm").write_bytes(b"unknown")
    assert [e.name for e in list_slides([tmp_path])] == ["0.dcm", "2.dcm", "3.dcm"]


def test_stems():
    assert stem_of("a/b.svs") == "a/b"
    assert stem_of("a.b/c.ome.tif") == "a.b/c"
    assert stem_of("a.v2.svs") == "a.v2"
    assert stem_of("plain") == "plain"
