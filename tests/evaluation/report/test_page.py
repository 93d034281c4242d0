"""The page as a file: what is in it, what is not, and how large it is."""

import csv
import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from patchknn.errors import ConflictError, UsageError
from patchknn.evaluation.report.drawing import new_figure, report_style
from patchknn.evaluation.report.page import check_report_folder, write_report
from patchknn.evaluation.report.parts import Cell, Drawing, ReportData, Section, Table
from patchknn.evaluation.report.words import shown

_INTO = re.compile(r"url\(data:image/jpeg;base64,([^)]+)\)")


class Parsed(HTMLParser):
    """The tags with their attributes, the texts, and what stands in scripts and styles."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.code: dict[str, list[str]] = {"script": [], "style": []}
        self._within = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in self.code:
            self.code[self._within].append(data)
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def parsed(hostile_page) -> Parsed:
    return Parsed(hostile_page)


def test_hostile_names_are_text(parsed, hostile_names, class_names) -> None:
    texts = set(parsed.texts)
    for name in (*hostile_names, *class_names, 'all "of" <them>'):
        assert any(shown(name) in text for text in texts), name
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"iframe", "object", "embed", "base", "form", "svg"}
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    # Class names are markup for bold and italic letters: none of them became any.
    assert not any(tag == "i" and "class" not in attributes for tag, attributes in parsed.tags)
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)


def test_no_control_character_reaches_the_page(hostile_page) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_nothing_comes_from_elsewhere(parsed) -> None:
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    for style in parsed.code["style"]:
        assert "@import" not in style
        assert re.findall(r"url\((?!data:)", style) == []


def test_the_policy_admits_what_is_there_and_nothing_else(parsed) -> None:
    (policy,) = (
        attributes["content"]
        for tag, attributes in parsed.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    parts = {part.split()[0]: part.split()[1:] for part in policy.split(";")}
    assert parts["default-src"] == ["'none'"]
    assert parts["img-src"] == ["data:"]
    for kind, name in (("script", "script-src"), ("style", "style-src")):
        hashes = [hashlib.sha256(code.encode()).digest() for code in parsed.code[kind]]
        assert parts[name] == [f"'sha256-{b64encode(digest).decode()}'" for digest in hashes]
    # It rules what comes after it alone.
    policies = [a.get("http-equiv") == "Content-Security-Policy" for _, a in parsed.tags]
    tags = [tag for tag, _ in parsed.tags]
    assert policies.index(True) < min(map(tags.index, ("link", "style", "script")))


def test_every_picture_is_there_once(parsed) -> None:
    (_, sheet) = parsed.code["style"]
    pictures = _INTO.findall(sheet)
    assert len(pictures) == len(set(pictures)) > 30
    used = [
        attributes["class"].split()[1]
        for tag, attributes in parsed.tags
        if tag == "i" and attributes["class"].startswith("p ")
    ]
    # Thirty queries, two methods, ten neighbours each.
    assert len(used) == 30 * (1 + 2 * 10)
    assert set(used) == {f"p{number}" for number in range(len(pictures))}


def test_figures_lie_beside_it(hostile_page) -> None:
    files = sorted(path.name for path in (hostile_page.parent / "figures").iterdir())
    names = ["recall-by-class", "reliability", "risk-coverage", "true-neighbours"]
    assert {f"{name}.{suffix}" for name in names for suffix in ("svg", "pdf", "csv")} <= set(files)
    for path in (hostile_page.parent / "figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")
    with (hostile_page.parent / "figures" / "true-neighbours.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["true neighbours", "patchknn", 'all "of" <them>']
    assert [sum(int(row[column]) for row in rows) for column in (1, 2)] == [160, 160]


def test_five_hundred_queries_stay_below_15_mb(picture_archive, reported, tmp_path) -> None:
    snapshot = picture_archive(600, side=112, names=[f"case-{n}/slide.svs" for n in range(40)])
    page = write_report(tmp_path / "report", reported(snapshot, queries=500))
    assert page.stat().st_size < 15_000_000
    assert len(re.findall(r'<li class="card ', page.read_text())) == 500


def test_sections_of_others_are_shown(tmp_path) -> None:
    with report_style():
        figure, axes = new_figure()
        axes.plot([0, 1], [1, 0])
    drawing = Drawing("a <b> name", figure, 'what "it" shows', Table(("x", "y"), ((0, 1.5),)))
    rows = (("r<1>", Cell(0.25, "a hint", 7, strong=True)), ("r2", None))
    section = Section("Intervals & more", "Text <i>.", Table(("c", "v"), rows), drawing)
    page = write_report(tmp_path / "report", ReportData("T <t>", sections=(section,)))
    parsed = Parsed(page)
    for text in ("T <t>", "Intervals & more", "Text <i>.", "r<1>", "a hint", "0.25", "–"):
        assert text in parsed.texts
    (image,) = (attributes for tag, attributes in parsed.tags if tag == "img")
    assert image["alt"] == 'what "it" shows'
    assert image["src"].startswith("data:image/svg+xml;base64,")
    written = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    assert written == ["a-b-name.csv", "a-b-name.pdf", "a-b-name.svg"]
    assert (tmp_path / "report" / "figures" / "a-b-name.csv").read_text() == "x,y\n0,1.5\n"


def test_a_map_of_many_points_becomes_pixels(tmp_path) -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 2))
    with report_style():
        figure, axes = new_figure()
        axes.plot(points[:, 0], points[:, 1], "o")
    section = Section("Map", figure=Drawing("map", figure, "points"))
    page = write_report(tmp_path / "report", ReportData("T", sections=(section,)))
    assert 'src="data:image/png;base64,' in page.read_text()
    assert page.stat().st_size < 600_000


def test_an_earlier_report_is_replaced_and_a_page_of_others_is_not(tmp_path) -> None:
    folder = tmp_path / "report"
    write_report(folder, ReportData("first"))
    page = write_report(folder, ReportData("second"))
    assert "second" in page.read_text()
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    page.write_text("<html>my own page</html>")
    with pytest.raises(ConflictError, match="was not written by patchknn"):
        write_report(folder, ReportData("third"))
    assert page.read_text() == "<html>my own page</html>"


def test_a_folder_that_cannot_be_is_refused_beforehand(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        check_report_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="there is no folder"):
        check_report_folder(tmp_path / "no" / "report")
    check_report_folder(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_full_leaves_the_earlier_page(tmp_path, little_room) -> None:
    folder = tmp_path / "report"
    page = write_report(folder, ReportData("first"))
    before = page.read_bytes()
    with pytest.raises(OSError, match=r"index\.html"), little_room(2000):
        write_report(folder, ReportData("second"))
    assert page.read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["index.html"]
