"""What a command line may name: every kind of input, and what is said of the unusable ones."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.datasets.entries import iter_entries
from patchknn.datasets.listing import choose_mpp, iter_patches
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.tiles import PatchSettings, entry_tiles, tileset_patches
from patchknn.errors import InputError
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide

_HERE = {"size": 32, "mpp": 0.5}


def _list(*arguments, **options):
    return list(iter_patches(arguments, **{**_HERE, **options}))


def _ids(items):
    return [item.id if isinstance(item, Patch) else (item.name, "error") for item in items]


def test_an_image_folder_labels_by_the_first_folder(tmp_path, write_png):
    write_png(tmp_path / "b" / "deep" / "2.png")
    write_png(tmp_path / "a" / "1.png")
    write_png(tmp_path / "top.png")
    (tmp_path / "notes.txt").write_text("not an image")
    write_png(tmp_path / ".hidden" / "3.png")
    patches = _list(tmp_path)
    assert [(p.id, p.label) for p in patches] == [
        ("top.png", None),
        ("a/1.png", "a"),
        ("b/deep/2.png", "b"),
    ]
    assert all(p.kind == "image" and p.path.is_absolute() for p in patches)
    assert [p.label for p in _list(tmp_path, labels=False)] == [None] * 3


def test_files_by_themselves_have_one_name_wherever_the_command_is_started(
    tmp_path, write_png, monkeypatch
):
    inside = write_png(tmp_path / "here" / "x" / "1.png")
    outside = write_png(tmp_path / "2.png")
    monkeypatch.chdir(tmp_path / "here")
    assert _ids(_list("x/1.png", inside, outside)) == ["1.png", "1.png", "2.png"]


def test_a_manifest_gives_labels_patients_and_splits_relative_to_itself(tmp_path, write_png):
    write_png(tmp_path / "lists" / "i" / "1.png")
    write_png(tmp_path / "lists" / "i" / "2.png")
    manifest = tmp_path / "lists" / "m.csv"
    manifest.write_text(
        "path,label,patient,slide,split,name,mpp\n"
        "i/1.png,A,P1,S1,train,first,0.25\n"
        "i/2.png,B,,S2,val,,\n"
    )
    first, second = _list(manifest)
    assert (first.source, first.label, first.patient, first.split) == ("first", "A", "P1", "train")
    assert first.slide_mpp == 0.25
    assert (second.source, second.patient, second.slide_mpp) == ("i/2.png", "S2", None)
    assert _ids(_list(manifest, split="val")) == ["i/2.png"]
    (problem,) = _list(manifest, split="test")
    assert "has no rows with split 'test'" in problem.error


def test_rows_with_positions_are_patches_of_a_slide(tmp_path, write_slide, write_png):
    write_slide(tmp_path / "s.tif")
    write_slide(tmp_path / "t.tif")
    write_png(tmp_path / "1.png")
    manifest = tmp_path / "m.tsv"
    rows = ["s.tif\t0\t64\tA", "1.png\t-1\t-1\tB", "t.tif\t0\t0\tA", "s.tif\t32\t64\tB"]
    manifest.write_text("\n".join(["path\tx\ty\tlabel", *rows]) + "\n")
    in_order = _list(manifest)
    assert _ids(in_order) == ["s.tif@0_64", "1.png", "t.tif@0_0", "s.tif@32_64"]
    assert [p.kind for p in in_order] == ["slide", "image", "slide", "slide"]
    entries = list(iter_entries([manifest]))
    assert [(e.name, e.kind, len(e.rows)) for e in entries] == [
        ("s.tif", "rows", 2),
        ("1.png", "image", 0),
        ("t.tif", "rows", 1),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\n1.png,A\n", "has no column 'path'"),
        ("path,x\n1.png,3\n", "only one of the columns x and y"),
        ("path,x,y\n1.png,3,here\n", "line 2: y is 'here', not a number"),
        ("path,mpp\n1.png,fine\n", "line 2: mpp is 'fine', not a number"),
        ("path,x,y\na.svs,1e30,0\n", "line 2: x is 1e+30, not a pixel of level 0"),
        ("path,x,y\na.svs,0,7.5\n", "line 2: y is 7.5, not a pixel of level 0"),
        ("path,mpp\ngood.png,-3\n", "line 2: mpp is -3; give µm/px above 0"),
        ("path,mpp\ngood.png,0\n", "line 2: mpp is 0; give µm/px above 0"),
        ("path,label\n", "has no rows"),
        ("path,label\n,A\n", "line 2: the path is empty"),
        ("path\nabsent.png\n", "absent.png does not exist"),
        ("path,x,y\nabsent.svs,0,0\n", "absent.svs does not exist"),
    ],
)
def test_a_wrong_manifest_is_one_sentence_and_the_rest_goes_on(tmp_path, write_png, text, sentence):
    good = write_png(tmp_path / "good.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text(text)
    problem, patch = _list(manifest, good)
    assert isinstance(problem, Problem)
    assert sentence in problem.error
    assert patch.path == good


def test_slides_are_tiled_on_the_fly_and_tile_sets_give_the_same_patches(tmp_path, write_slide):
    slide = write_slide(tmp_path / "slides" / "s.tif")
    write_slide(tmp_path / "slides" / "blank.tif", tissue=False)
    on_the_fly = _list(tmp_path / "slides")
    assert {p.source for p in on_the_fly} == {"s.tif"}
    assert all(p.kind == "slide" and p.x < 160 for p in on_the_fly)
    tileset = tile_slide(slide, TilingSettings(size=32), name="s.tif", patient="P", label="A")
    assert len(on_the_fly) == len(tileset) > 20
    write_tileset(tmp_path / "tiles" / "s.h5", tileset)
    stored = _list(tmp_path / "tiles")
    assert _ids(stored) == _ids(on_the_fly)
    assert {(p.label, p.patient) for p in stored} == {("A", "P")}


def test_slides_of_tile_sets_are_found_where_they_lie_now(tmp_path, write_slide):
    slide = write_slide(tmp_path / "old" / "a" / "s.tif")
    tileset = tile_slide(slide, TilingSettings(size=32), name="a/s.tif")
    file = tmp_path / "s.h5"
    write_tileset(file, tileset)
    for place in ("new/a/s.tif", "flat/s.tif"):
        moved = tmp_path / place
        moved.parent.mkdir(parents=True)
        slide.rename(moved)
        (problem,) = _list(file)
        assert "give --slides DIR" in problem.error
        patches = _list(file, slides_dir=tmp_path / place.split("/")[0])
        assert {p.path for p in patches} == {moved}
        slide = moved


def test_a_tile_set_of_another_size_or_mpp_is_refused_by_name(tmp_path, write_slide):
    slide = write_slide(tmp_path / "s.tif")
    write_tileset(tmp_path / "t.h5", tile_slide(slide, TilingSettings(size=32), name="s.tif"))
    (problem,) = _list(tmp_path / "t.h5", size=64)
    assert "t.h5 holds tiles of 32 px at 0.5 µm/px, and 64 px at 0.5 µm/px" in problem.error
    (problem,) = _list(tmp_path / "t.h5", mpp=1.0)
    assert "32 px at 1 µm/px are asked for" in problem.error
    assert choose_mpp([tmp_path / "t.h5"], None) == 0.5
    assert choose_mpp([tmp_path / "t.h5"], 1.0) == 1.0


def test_unusable_files_are_problems_and_the_rest_goes_on(tmp_path, write_png, write_slide):
    good = write_png(tmp_path / "ünï ✓.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "broken.svs").write_bytes(b"II*\0 and then nothing")
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    (tmp_path / "folder").mkdir()
    no_mpp = write_slide(tmp_path / "nompp.tif", mpp=None)
    names = ["none.png", "empty.png", "notes.txt", "broken.svs", "bad.h5", "folder"]
    *problems, patch, unknown = _list(*(tmp_path / n for n in names), good, no_mpp)
    sentences = [
        "none.png does not exist.",
        "empty.png is an empty file.",
        "is not an image, a slide, a tile set",
        "broken.svs is not a slide that can be opened",
        "bad.h5 is not a tile set",
        "folder holds no image, slide or tile set",
    ]
    for problem, sentence in zip(problems, sentences, strict=True):
        assert sentence in problem.error
    assert patch.source.endswith("ünï ✓.png")
    assert "--default-mpp" in unknown.error
    assert all(isinstance(p, Patch) for p in _list(no_mpp, default_mpp=0.5))


def test_one_name_for_two_files_names_both(tmp_path, write_png):
    write_png(tmp_path / "a" / "1.png")
    write_png(tmp_path / "b" / "1.png")
    first, problem = _list(tmp_path / "a", tmp_path / "b")
    assert isinstance(first, Patch)
    assert str(tmp_path / "a" / "1.png") in problem.error
    assert str(tmp_path / "b" / "1.png") in problem.error


def test_arguments_are_taken_one_by_one_as_they_come(tmp_path, write_png):
    image = write_png(tmp_path / "1.png")
    taken = []

    def stream():
        for number in range(3):
            taken.append(number)
            yield str(image)

    patches = iter_patches(stream(), **_HERE)
    next(patches)
    assert taken == [0]


def test_links_are_followed_and_a_loop_of_links_ends(tmp_path, write_png):
    write_png(tmp_path / "real" / "A" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "B").symlink_to(tmp_path / "real" / "A")
    (tmp_path / "real" / "A" / "loop").symlink_to(tmp_path / "real")
    patches = _list(tmp_path / "data")
    assert ("B/1.png", "B") in [(p.id, p.label) for p in patches]
    assert len(patches) <= 2


def test_what_is_made_of_a_folder_inside_it_is_left_out(tmp_path, write_png):
    write_png(tmp_path / "a" / "1.png")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "1.h5").write_bytes(b"not a tile set")
    entries = list(iter_entries([tmp_path], exclude=tmp_path / "made"))
    assert [entry.name for entry in entries] == ["a/1.png"]


def test_slides_and_tile_sets_with_a_stride(tmp_path, write_slide):
    slide = write_slide(tmp_path / "s.tif")
    tileset = tile_slide(slide, TilingSettings(size=32, stride=16), name="s.tif")
    write_tileset(tmp_path / "t.h5", tileset)
    (entry,) = iter_entries([slide])
    (tiled,) = iter_entries([tmp_path / "t.h5"])
    settings = PatchSettings(32, 0.5, stride=16)
    for one in (entry, tiled):
        np.testing.assert_array_equal(entry_tiles(one, settings).coords, tileset.coords)
    assert len(entry_tiles(tiled, PatchSettings(32, 0.5))) == len(tileset)
    with pytest.raises(InputError, match="every 16 px, and every 32 px are asked for"):
        entry_tiles(tiled, PatchSettings(32, 0.5, stride=32))
    part = tileset_patches(tileset, entry, slice(3, 5))
    assert part == tileset_patches(tileset, entry)[3:5]
