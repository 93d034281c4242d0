"""Where what is made of a slide goes, and what it must not take the place of."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchknn.errors import ConflictError
from patchknn.slides.listing import SlideEntry
from patchknn.slides.outputs import MadeOf, output_files, refuse_another


def _entries(*names):
    return [SlideEntry(name, Path("/slides") / name) for name in names]


def test_a_slide_gives_its_name_and_the_output_its_suffix(tmp_path):
    outputs = output_files(_entries("a/b.ome.tif", "a/c.svs", "d"), tmp_path, ".zarr")
    assert [output.path for output in outputs] == [
        tmp_path / "a" / "b.zarr", tmp_path / "a" / "c.zarr", tmp_path / "d.zarr",
    ]  # fmt: skip
    assert {output.clash for output in outputs} == {None}


def test_of_two_that_would_share_a_file_the_first_slide_has_it(tmp_path):
    one, picture, other = output_files(_entries("a.svs", "a.png", "a.tif"), tmp_path, ".h5")
    assert one.clash is None
    assert "/slides/a.svs and /slides/a.tif would both be" in other.clash
    assert "/slides/a.svs and /slides/a.png would both be" in picture.clash
    picture, slide = output_files(_entries("a.png", "a.svs"), tmp_path, ".h5")
    assert slide.clash is None
    assert "would both be" in picture.clash


def test_no_name_leads_out_of_the_folder(tmp_path):
    (output,) = output_files(_entries("../a.svs"), tmp_path / "tiles", ".h5")
    assert "would be written outside" in output.clash


@pytest.mark.parametrize(
    ("made_of", "refused"),
    [
        (MadeOf("a", Path("/x/a"), "12"), False),
        (MadeOf("a", Path("/y/a"), "12"), False),  # moved
        (MadeOf("a", Path("/x/a"), "34"), False),  # changed
        (MadeOf("a", Path("/y/a"), "34"), True),
        (MadeOf("b", Path("/x/a"), "12"), True),
    ],
)
def test_a_file_of_another_slide_is_not_replaced(made_of, refused):
    wanted = MadeOf("a", Path("/x/a"), "12")
    if not refused:
        refuse_another(Path("a.h5"), made_of, wanted)
        return
    with pytest.raises(ConflictError, match=r"is of /[xy]/a, not of /x/a; choose another -o"):
        refuse_another(Path("a.h5"), made_of, wanted)
