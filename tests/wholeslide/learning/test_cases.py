"""A table's rows brought together with grids."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from patchknn.errors import ConflictError, InputError
from patchknn.wholeslide.grids.grid import open_grid, write_grid
from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.tasks.reading import Question


def test_slides_are_known_with_and_without_suffix(make_cohort, tmp_path):
    table = make_cohort(slides=6)
    lines = table.read_text().splitlines()
    lines[1] = lines[1].replace("slide000.tiff", "slide000")
    lines[2] = lines[2].replace("slide001.tiff", "elsewhere/slide001.tiff")
    other = tmp_path / "other.csv"
    other.write_text("\n".join(lines))
    cohort = read_cohort(table.parent, other, Question())
    assert [case.name for case in cohort.cases] == [f"slide{n:03}.tiff" for n in range(6)]
    assert not cohort.problems
    expected = [line.split(",")[2] for line in lines[1:]]
    assert [cohort.task.known(target)["label"] for target in cohort.targets] == expected
    assert cohort.cases[0].patient == lines[1].split(",")[1]


def test_what_lies_in_another_folder_is_another_slide(make_cohort, tmp_path):
    table = make_cohort(slides=4)
    for number, name in enumerate(("a/s.svs", "b/s.svs", "c/only.svs", "C0.2")):
        grid = open_grid(table.parent / f"slide{number:03}.h5")
        info = dataclasses.replace(grid.info, name=name)
        write_grid(table.parent / f"slide{number:03}.h5", info, grid.features, grid.mask)
    other = tmp_path / "other.csv"
    told = {
        "a/s.svs": "x",
        "/far/b/s.ndpi": "y",
        "only": "x",
        "C0.2": "y",
        "d/s.svs": "x",
        "d/only.svs": "x",
        "s.svs": "x",
        "C0.svs": "x",
    }
    other.write_text("\n".join(["slide,label", *(f"{n},{label}" for n, label in told.items())]))
    cohort = read_cohort(table.parent, other, Question())
    names = ["a/s.svs", "b/s.svs", "c/only.svs", "C0.2"]
    assert [case.name for case in cohort.cases] == names
    assert [problem.name for problem in cohort.problems] == [*told][4:]


def test_slides_without_tissue_teach_nothing(make_cohort):
    table = make_cohort(slides=6)
    labels = [line.split(",")[2] for line in table.read_text().splitlines()[1:]]
    for number, label in enumerate(labels):
        if label == "positive":
            grid = open_grid(table.parent / f"slide{number:03}.h5")
            blank = np.zeros_like(grid.mask)
            write_grid(table.parent / f"slide{number:03}.h5", grid.info, grid.features, blank)
    for question in (Question(), Question(target="burden")):
        with pytest.raises(InputError, match="slides with tissue"):
            read_cohort(table.parent, table, question)
    cohort = read_cohort(table.parent, table, Question(time="time", event="event"))
    assert len(cohort.cases) == labels.count("negative")


def test_what_is_missing_is_said(make_cohort, tmp_path):
    table = make_cohort(slides=6)
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("positive", "").replace("negative", "")
    del lines[5]
    other = tmp_path / "other.csv"
    other.write_text("\n".join([*lines, "ghost.svs,P9,positive,0,1,1"]))
    grid = open_grid(table.parent / "slide001.h5")
    write_grid(table.parent / "slide001.h5", grid.info, grid.features, np.zeros_like(grid.mask))
    (table.parent / "broken.h5").write_bytes(b"no grid")
    cohort = read_cohort(table.parent, other, Question())
    assert len(cohort.cases) == 3
    assert any("ghost.svs has no grid" in problem.error for problem in cohort.problems)
    assert any("broken.h5" in problem.error for problem in cohort.problems)
    assert len(cohort.problems) == 2
    told = " ".join(cohort.remarks)
    assert "does not say label: 1;" in told
    assert "without tissue: 1;" in told
    assert "does not name: 1;" in told


def test_grids_of_two_encoders_are_refused(make_cohort):
    table = make_cohort(slides=4)
    path = table.parent / "slide002.h5"
    grid = open_grid(path)
    features = np.array(grid.features)
    write_grid(path, dataclasses.replace(grid.info, encoder="another"), features, grid.mask)
    with pytest.raises(ConflictError, match="differ in the encoder"):
        read_cohort(table.parent, table, Question())


def test_one_slide_has_one_row(make_cohort, tmp_path):
    table = make_cohort(slides=4)
    lines = table.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(InputError, match="lines 2 and 6, both speak of slide000"):
        read_cohort(table.parent, other, Question())


def test_a_table_without_slides_is_refused(make_cohort, tmp_path):
    table = make_cohort(slides=4)
    other = tmp_path / "other.csv"
    other.write_text("image,label\na,b\n")
    with pytest.raises(InputError, match="needs a column 'slide'"):
        read_cohort(table.parent, other, Question())
    other.write_text("slide,label\nx.svs,b\n")
    with pytest.raises(InputError, match="None of the 1 slides"):
        read_cohort(table.parent, other, Question())
