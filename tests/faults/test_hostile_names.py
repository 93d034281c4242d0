"""Names of files, classes, patients and people, whatever they hold, are shown and do nothing."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from small_archives import Labels, add, build_rows, bundle_of, new_archive

from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.snapshot import open_archive

NAMES = {
    "markup": "[bold red]x[/bold red][link=file:///etc/passwd]y",
    "broken markup": "[/] [[ ]] [red",
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "eight bits": "\x9b31m\x9d0;x\x9c",
    "line ends": "a\nb\rc\r\nd\x85e\u2028f",
    "tabs": "a\tb\t\tc",
    "quotes": "\"a\" 'b' `c` $(d)",
    "backwards": "\u202egnp.exe",
    "zero width": "a\u200bb\ufeffc",
    "formula": "=cmd|' /C calc'!A0",
    "an option": "--purge",
    "a path": "../../../etc/passwd",
    "a patch id": "other.svs@0_0",
    "no UTF-8": b"\xff\xfe\x80".decode("utf-8", "surrogateescape"),
    "bells": "\a\b\v\f\x7f\x00",
    "long": "n" * 5000,
    "NDJSON": '{"query": "x"}\n{"prediction": "y"}',
}
# What moves a terminal's cursor, changes its colours, or ends a line where none ends.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """An archive whose every kind of name is hostile, one source each."""
    path = new_archive(tmp_path_factory.mktemp("named"))
    bundle = bundle_of(path)
    for number, name in enumerate(NAMES.values()):
        rows = build_rows(bundle, seed=number, images=["plain"], slides=[])
        called = {"name": name, "path": f"/data/{name}", "patient": name}
        rows = rows.with_sources(tuple(source._replace(**called) for source in rows.sources))
        rows.classes, rows.labels = (name,), rows.labels * 0
        add(path, rows)
    by, reason = NAMES["colour"], NAMES["line ends"]
    corrections: dict[str, Correction] = {NAMES["markup"]: Correction(NAMES["title"], by, reason)}
    relabel_patches(path, corrections)
    return path


@pytest.fixture(scope="module")
def expected(named) -> Labels:
    snapshot = open_archive(named)
    labels: Labels = {}
    for row in range(snapshot.n_rows):
        labels[snapshot.row(row).id] = snapshot.row(row).label
    assert set(labels) == set(NAMES.values())
    return labels


@pytest.fixture
def ran(children, named):
    """``ran("archive", "list", named, …)``: what is printed where all is well."""

    def run(*words):
        asked = {"archive": str(named), "commands": [list(map(str, words))]}
        reply = children.ask("commands", asked)
        assert reply.error is None, reply.error
        (_, (_, _, code, out, err)) = reply.told
        assert (code, err) == (0, "")
        return out

    return run


def test_ndjson_is_one_object_a_line_with_the_names_as_they_are(ran, named, expected):
    text = ran("archive", "list", named, "--format", "ndjson")
    lines = text.encode().decode().split("\n")  # it can be written to any file
    assert lines.pop() == ""
    objects = [json.loads(line) for line in lines]
    assert len(objects) == len(expected)
    told = {value["id"]: value["label"] for value in objects}
    assert told == expected


def test_tsv_has_one_line_a_row_and_all_its_columns(ran, named, expected):
    text = ran("archive", "list", named, "--format", "tsv")
    lines = text.encode().decode().split("\n")
    assert lines.pop() == ""
    header, *rows = csv.reader(lines, dialect="excel-tab", strict=True)
    assert len(rows) == len(expected)
    assert {len(row) for row in rows} == {len(header)}
    names = {row[header.index("name")] for row in rows}
    for what in ("markup", "broken markup", "quotes", "formula", "an option", "long"):
        assert NAMES[what] in names, what


@pytest.mark.parametrize(
    "words",
    [
        ("archive", "list", "--format", "table"),
        ("archive", "info", "--format", "table"),
        ("archive", "log", "--labels", "--format", "table"),
    ],
    ids=lambda words: words[1],
)
def test_a_table_moves_no_cursor_and_shows_every_mark(ran, named, words):
    first, second, *rest = words
    text = ran(first, second, named, *rest)
    assert "[/]" in text or second == "log"
    assert not _CONTROLS.search(text.replace("\n", ""))


def test_a_query_names_neighbours_of_any_name(ran, named, expected, tmp_path):
    file = tmp_path / "q.npy"
    np.save(file, np.random.default_rng(1).normal(size=(2, 12)))
    many = ("--k", "30", "--radius", "16")
    for style in ("ndjson", "tsv"):
        text = ran("query", named, file, "--format", style, *many)
        lines = text.split("\n")
        assert lines.pop() == ""
        if style == "ndjson":
            assert len(lines) == 2
            for answer in map(json.loads, lines):
                assert len(answer["neighbours"]) == len(expected)
        else:
            rows = list(csv.reader(lines, dialect="excel-tab", strict=True))
            assert len({len(row) for row in rows}) == 1


def test_a_query_as_a_table_moves_no_cursor(ran, named, tmp_path):
    file = tmp_path / "q.npy"
    np.save(file, np.ones((1, 12)))
    text = ran("query", named, file, "--format", "table", "--k", "30", "--radius", "16")
    assert not _CONTROLS.search(text.replace("\n", ""))


@pytest.mark.parametrize("what", [what for what in NAMES if what not in {"bells", "line ends"}])
def test_every_patch_is_found_by_its_name(named, what):
    name = NAMES[what]
    assert open_archive(named).locate(name) is not None
