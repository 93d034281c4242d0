"""Labels of stored features from tables: by slide, by patch, and what does not match."""

from __future__ import annotations

import duckdb
import h5py
import numpy as np
import pytest

from patchknn.datasets.stored import put_together
from patchknn.datasets.stored_hdf5 import feature_parts
from patchknn.datasets.stored_labels import labelled
from patchknn.errors import InputError


def read_feature_files(paths, labels):
    """What files and a table give together."""
    return put_together(labelled((part for path in paths for part in feature_parts(path)), labels))


@pytest.fixture
def features(tmp_path):
    """Three slides of three patches at x = 0, 512, 1024 (y = 100), below ``features``."""
    folder = tmp_path / "features"
    for number, name in enumerate(("a", "b.x", "site/c")):
        path = folder / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["features"] = np.full((3, 2), number, np.float32)
            file["coords"] = np.array([[0, 100], [512, 100], [1024, 100]])
    return folder


@pytest.fixture
def table(tmp_path):
    def write(text, name="labels.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_each_slide_has_its_label_patient_and_split(features, table):
    labels = table(
        "slide,label,patient,split\na,TUM,P1,train\nb.x.svs,STR,P2,val\nsite/c.h5,,P1,\n"
    )
    result = read_feature_files([features], labels)
    assert result.sources == ("a",) * 3 + ("b.x",) * 3 + ("site/c",) * 3
    assert result.labels == ("TUM",) * 3 + ("STR",) * 3 + (None,) * 3
    assert result.patients == ("P1",) * 3 + ("P2",) * 3 + ("P1",) * 3
    assert result.splits == ("train",) * 3 + ("val",) * 3 + (None,) * 3
    assert result.problems == ()


@pytest.mark.parametrize("cell", ["b.x", "b.x.h5", "b.x.svs", "b.x.NDPI", "b.x.ome.tiff"])
def test_a_slide_may_be_named_with_or_without_suffix(features, table, cell):
    result = read_feature_files(
        [features / "b.x.h5"], table(f"slide\tlabel\n{cell}\tTUM\n", "l.tsv")
    )
    assert result.labels == ("TUM",) * 3
    assert result.problems == ()


def test_a_slide_in_a_folder_is_found_by_its_file_name_alone(features, table):
    result = read_feature_files([features], table("slide,label\nc,TUM\na,STR\nb.x,STR\n"))
    assert result.labels[-3:] == ("TUM",) * 3


def test_parquet_serves_too(features, tmp_path):
    file = tmp_path / "labels.parquet"
    duckdb.sql("SELECT 'a' AS slide, 'TUM' AS label").write_parquet(str(file))
    assert read_feature_files([features / "a.h5"], file).labels == ("TUM",) * 3


def test_slides_without_row_and_rows_without_slide_are_problems(features, table):
    labels = table("slide,label\na,TUM\nz.svs,STR\n")
    result = read_feature_files([features], labels)
    assert set(result.sources) == {"a"}
    assert [(problem.name, problem.error) for problem in result.problems] == [
        ("b.x", f"{labels} has no row of b.x: {features / 'b.x.h5'} is left out."),
        ("site/c", f"{labels} has no row of site/c: {features / 'site/c.h5'} is left out."),
        ("z.svs", f"{labels}, line 3: there are no features of z.svs."),
    ]


def test_patches_have_their_own_labels(features, table):
    labels = table(
        "slide,label,x,y,split\na,TUM,512,100,val\na,STR,,,train\nb.x,MUC,1024.0,100.4,\n"
        "site/c,,,,\n"
    )
    result = read_feature_files([features], labels)
    assert result.labels == ("STR", "TUM", "STR", None, None, "MUC", None, None, None)
    assert result.splits == ("train", "val", "train") + (None,) * 6
    assert result.problems == ()


def test_patches_in_micrometres_are_found_by_rounded_positions(tmp_path, table):
    rng = np.random.default_rng(0)
    coords = (np.arange(40)[:, None] * 112.14 + rng.uniform(-5, 5, (40, 2))).astype(np.float32)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["feats"] = np.zeros((40, 2), np.float16)
        file["coords"] = coords
        file.attrs["unit"] = "um"
    rows = "".join(f"s,L{row},{x:.1f},{y:.0f}\n" for row, (x, y) in enumerate(coords.tolist()))
    result = read_feature_files([tmp_path / "s.h5"], table("slide,label,x,y\n" + rows))
    assert result.labels == tuple(f"L{row}" for row in range(40))
    assert result.problems == ()


def test_patches_that_a_file_does_not_hold_are_a_problem(features, table):
    labels = table("slide,label,x,y\na,TUM,512,100\na,STR,513,100\na,STR,9,9\n")
    result = read_feature_files([features / "a.h5"], labels)
    assert result.labels == (None, "TUM", None)
    (problem,) = result.problems
    assert "2 of 3 patches of a are not in" in problem.error
    assert "the first at 513, 100 (line 3); its coordinates are in px" in problem.error


def test_a_table_goes_before_labels_in_the_file_where_it_says_something(features, table):
    with h5py.File(features / "a.h5", "a") as file:
        file.create_dataset("label", data=["A", "", "C"], dtype=h5py.string_dtype())
    file = features / "a.h5"
    assert read_feature_files([file], table("slide,label\na,\n")).labels == ("A", None, "C")
    assert read_feature_files([file], table("slide,label\na,X\n")).labels == ("X",) * 3
    patch = table("slide,label,x,y\na,X,0,100\na,,1024,100\n")
    assert read_feature_files([file], patch).labels == ("X", None, None)
    other = read_feature_files([features / "a.h5"], table("slide,label\nz,X\n"))
    assert other.labels == ("A", None, "C")  # has labels, and needs no row
    assert [problem.name for problem in other.problems] == ["z"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slide,label\na,TUM\na,STR\n", "lines 2 and 3 contradict each other on a"),
        ("slide,label,x,y\na,T,0,1\na,S,0,1\n", "lines 2 and 3 contradict each other on a"),
        ("slide,label,patient\na,T,P1\na,T,P2\n", "line 3: a is of patient P2, and of P1"),
        ("slide,label\n,TUM\n", "line 2: the slide is empty"),
        ("slide,label,x,y\na,T,0,\n", "line 2: x or y is empty"),
        ("slide,label,x\na,T,0\n", "only one of the columns x and y"),
        ("slide,label,x,y\na,T,0,top\n", "line 2: y is 'top', not a number"),
        ("file,label\na,T\n", "no column 'slide'"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(features, table, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_feature_files([features], table(text))


def test_the_same_said_twice_is_no_contradiction(features, table):
    labels = table("slide,label,patient\na,TUM,\na,TUM,P1\n")
    result = read_feature_files([features / "a.h5"], labels)
    assert (result.labels, result.patients) == (("TUM",) * 3, ("P1",) * 3)


def test_one_row_for_two_slides_is_refused(features, table, tmp_path):
    (features / "site2").mkdir()
    (features / "site2" / "c.h5").write_bytes((features / "site" / "c.h5").read_bytes())
    with pytest.raises(InputError, match="'c' stands for both 'site/c' and 'site2/c'"):
        read_feature_files([features], table("slide,label\nc,TUM\na,S\nb.x,S\n"))
    labels = table("slide,label\nsite/c,TUM\nsite2/c,STR\na,S\nb.x,S\n")
    result = read_feature_files([features], labels)
    assert result.labels[-6:] == ("TUM",) * 3 + ("STR",) * 3
    assert result.problems == ()
