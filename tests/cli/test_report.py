"""``--report`` of ``evaluate`` and ``query``: whose pictures and which queries are on the page."""

from __future__ import annotations

import csv
import json
import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder

Run = Callable[..., Any]
COLOURS = {"STR": (225, 130, 175), "LYM": (80, 70, 150)}
OTHERS = {"STR": (120, 200, 120), "LYM": (60, 140, 200)}
SIZE = 32


def write_pictures(
    folder: Path,
    patients: tuple[str, ...],
    first: int,
    colours: dict[str, tuple[int, int, int]] = COLOURS,
) -> Path:
    rows = []
    for number, patient in enumerate(patient for patient in patients for _ in range(8)):
        label = ("STR", "LYM")[number % 2]
        noise = np.random.default_rng(first + number).normal(0, 15, (SIZE, SIZE, 3))
        path = folder / "images" / f"{patient}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.clip(noise + colours[label], 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(path)
        rows.append([f"images/{path.name}", label, patient])
    manifest = folder / "all.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *rows])
    return manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``archive`` of the pictures of ``stored/all.csv``, and ``asked/all.csv``."""
    from patchknn.cli.main import run

    folder = tmp_path_factory.mktemp("report")
    backbone = create_backbone("test_resnet", input_size=SIZE)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, 16, (2,))
    save_encoder(
        folder / "encoder",
        network,
        backbone,
        input_size=SIZE,
        bits=16,
        tasks={"label": tuple(COLOURS)},
        training={},
        metrics={},
        hash_method="learned",
    )
    stored = write_pictures(folder / "stored", ("P1", "P2", "P3"), 0)
    write_pictures(folder / "asked", ("P8", "P9"), 100)
    line = ["embed", stored, "--encoder", folder / "encoder", "--archive", folder / "archive"]
    assert run([str(word) for word in [*line, "--device", "cpu"]]) == 0
    return folder


def cards_of(page: Path) -> list[str]:
    return page.read_text().split('<li class="card ')[1:]


def pictures_of(page: Path) -> list[np.ndarray]:
    data = re.findall(r"base64,([^)]+)\)\}", page.read_text())
    return [np.array(Image.open(BytesIO(b64decode(one)))) for one in data]


def test_evaluate_shows_queries_neighbours_and_the_baseline(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report" / "index.html"
    line = ("evaluate", place / "archive", place / "asked" / "all.csv", "--k", 5)
    more = ("--max-radius", 16, "--baseline", "mean-colour", "--report", tmp_path / "report")
    result = patchknn(*line, *more, "--slides", place / "stored")
    assert result.code == 0, result.err
    assert result.err.endswith(f"{page} is written; it shows 16 queries.\n")
    cards = cards_of(page)
    assert len(cards) == 16
    for card in cards:
        # Two colours are what a mean colour can tell apart: its five neighbours are all true.
        ours, baseline = card.split('<div class="answer">')[1:]
        assert "<bdi>patchknn</bdi>" in ours
        assert "<bdi>mean-colour</bdi>" in baseline
        assert baseline.count('<li class="y"') == 5
        assert "<span>16 bit" not in baseline
        assert "patient P" in ours
    pictures = pictures_of(page)
    # Of 24 stored and 16 asked ones each that is shown is there once, in one of the two colours.
    assert 16 < len(pictures) <= 40
    for picture in pictures:
        mean = picture.mean(axis=(0, 1))
        assert min(np.abs(mean - colour).max() for colour in COLOURS.values()) < 12


def test_evaluate_shows_an_even_sample_of_many(patchknn: Run, place: Path, tmp_path: Path) -> None:
    line = ("evaluate", place / "archive", place / "asked" / "all.csv", "--report-queries", 4)
    result = patchknn(*line, "--report", tmp_path / "report")
    assert result.code == 0, result.err
    page = tmp_path / "report" / "index.html"
    assert len(cards_of(page)) == 4
    assert "4 of 16 queries are shown" in page.read_text()


def test_pictures_that_are_gone_are_said_and_their_places_are_labelled(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "archive", tmp_path / "archive")
    line = ("evaluate", tmp_path / "archive", "--exclude-same", "self", "--max-radius", 16)
    result = patchknn(*line, "--report", tmp_path / "report")
    assert result.code == 0, result.err
    assert f"24 pictures were not found for {tmp_path / 'report' / 'index.html'}" in result.err
    assert "--slides DIR" in result.err
    text = (tmp_path / "report" / "index.html").read_text()
    assert text.count("picture not found") == 24 * 11
    found = patchknn(*line, "--report", tmp_path / "report", "--slides", place / "stored")
    assert "not found" not in found.err
    assert len(pictures_of(tmp_path / "report" / "index.html")) == 24


def test_query_shows_the_least_sure_first(patchknn: Run, place: Path, tmp_path: Path) -> None:
    line = ("query", place / "archive", place / "asked" / "images", "--k", 6, "--max-radius", 16)
    more = ("--abstain-below", 0.9, "--report", tmp_path / "report", "--report-queries", 9)
    result = patchknn(*line, *more, "--slides", place / "stored")
    assert result.code == 0, result.err
    assert result.err.endswith("index.html is written; it shows 9 of 16 queries.\n")
    cards = cards_of(tmp_path / "report" / "index.html")
    shown = [float(re.search(r'data-c="([^"]+)"', card)[1]) for card in cards]
    answers = [json.loads(text) for text in result.out.splitlines()]
    assert shown == sorted(answer["confidence"] for answer in answers)[:9]
    for card in cards:
        sure = float(re.search(r'data-c="([^"]+)"', card)[1])
        assert ("for review" in card) == (sure < 0.9)
        assert "true class" not in card


def test_fields_of_records_stand_beside_each_neighbour(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "archive", tmp_path / "archive")
    organs = {"P1": "colon", "P2": "<b>liver</b>"}
    lines = ["patient,organ", *(f"{patient},{organ}" for patient, organ in organs.items())]
    (tmp_path / "organs.csv").write_text("\n".join(lines) + "\n")
    attach = ("archive", "records", "attach", tmp_path / "archive", tmp_path / "organs.csv")
    assert patchknn(*attach, "--key", "patient").code == 0
    line = ("query", tmp_path / "archive", "--id", "images/P3-16.png", "--max-radius", 16)
    result = patchknn(*line, "--k", 23, "--fields", "organ", "--report", tmp_path / "report")
    assert result.code == 0, result.err
    (card,) = cards_of(tmp_path / "report" / "index.html")
    neighbours = card.split('<ol class="near">')[1].split("<li class")[1:]
    assert len(neighbours) == 10
    told = {"P1": "organ: colon", "P2": "organ: &lt;b&gt;liver&lt;/b&gt;", "P3": "organ: –"}
    for neighbour in neighbours:
        patient = re.search(r"patient (P\d)", neighbour)[1]
        assert f"<bdi>{told[patient]}</bdi>" in neighbour


def test_evaluate_shows_fields_beside_the_query_too_and_in_its_answers(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "archive", tmp_path / "archive")
    (tmp_path / "organs.csv").write_text("patient,organ\nP1,colon\nP2,liver\nP9,skin\n")
    attach = ("archive", "records", "attach", tmp_path / "archive", tmp_path / "organs.csv")
    assert patchknn(*attach, "--key", "patient").code == 0
    answers = tmp_path / "answers.ndjson"
    line = ("evaluate", tmp_path / "archive", place / "asked" / "all.csv", "--fields", "organ")
    more = ("--method", "l2", "--baseline", "mean-colour", "--slides", place / "stored")
    result = patchknn(*line, *more, "--report", tmp_path / "report", "--answers", answers)
    assert result.code == 0, result.err
    organs = {"P1": "colon", "P2": "liver", "P3": None}
    told = [json.loads(text) for text in answers.read_text().splitlines()]
    assert [one["method"] for one in told] == ["patchknn", "coarse-l2"] * 16
    neighbours = [neighbour for one in told for neighbour in one["neighbours"]]
    assert {neighbour["patient"] for neighbour in neighbours} == set(organs)
    for neighbour in neighbours:
        assert neighbour["fields"] == {"organ": organs[neighbour["patient"]]}
    for card in cards_of(tmp_path / "report" / "index.html"):
        query, *rows = card.split('<ol class="near">')
        assert len(rows) == 3
        own = re.search(r"P[89]", query)[0]
        assert ("organ" in query, "skin" in query) == (own == "P9", own == "P9")
        for neighbour in [one for row in rows for one in row.split("<li class")[1:]]:
            patient = re.search(r"patient (P\d)", neighbour)[1]
            assert f"<bdi>organ: {organs[patient] or '–'}</bdi>" in neighbour


def test_neighbours_in_another_archive_stand_below_with_its_pictures(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    """Paper A, Fig. 4: the same query, one row of neighbours for each encoder."""
    other = tmp_path / "other"
    stored = write_pictures(tmp_path / "more", ("P5", "P6"), 300, OTHERS)
    line = ("embed", stored, "--encoder", place / "encoder", "--archive", other, "--thumbnails", 32)
    assert patchknn(*line, "--device", "cpu").code == 0
    line = ("evaluate", place / "archive", place / "asked" / "all.csv", "--compare", other)
    more = ("--k", 5, "--max-radius", 16, "--slides", place / "stored", "--baseline", "none")
    result = patchknn(*line, *more, "--report", tmp_path / "report")
    assert result.code == 0, result.err
    assert "not found" not in result.err
    page = tmp_path / "report" / "index.html"
    pictures = pictures_of(page)
    for card in cards_of(page):
        _, ours, its = card.split('<div class="answer">')
        assert "<bdi>patchknn</bdi>" in ours
        assert f"<bdi>patchknn on {other}</bdi>" in its
        assert set(re.findall(r"patient (P\d)", ours)) <= {"P1", "P2", "P3"}
        assert set(re.findall(r"patient (P\d)", its)) <= {"P5", "P6"}
        assert its.count(" bit") >= 5
        # Row 3 of one archive is another picture than row 3 of the other.
        for row, colours in ((ours, COLOURS), (its, OTHERS)):
            numbers = [int(number) for number in re.findall(r'class="[^"]*\bp(\d+)"', row)]
            assert len(numbers) == 5
            for mean in (pictures[number].mean(axis=(0, 1)) for number in numbers):
                assert min(np.abs(mean - colour).max() for colour in colours.values()) < 12


def test_stored_rows_are_shown_too(patchknn: Run, place: Path, tmp_path: Path) -> None:
    line = ("query", place / "archive", "--id", "images/P1-0.png", "--max-radius", 16)
    result = patchknn(*line, "--report", tmp_path / "report", "--slides", place / "stored")
    assert result.code == 0, result.err
    (card,) = cards_of(tmp_path / "report" / "index.html")
    assert "images/P1-0.png" in card
    assert "patient: P1" in card.split('<ol class="near">')[0]
    assert card.count("picture not found") == 0


@pytest.mark.parametrize("command", ["evaluate", "query"])
def test_a_report_that_cannot_be_is_refused_at_once(
    patchknn: Run, place: Path, tmp_path: Path, command: str
) -> None:
    line = (command, place / "archive", place / "asked" / "all.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own page")
    for more, code, said in (
        (("--report", tmp_path / "mine"), 1, "was not written by patchknn"),
        (("--report", tmp_path / "no" / "report"), 2, "there is no folder"),
        (("--report", tmp_path / "new", "--report-queries", 0), 2, "--report-queries 0"),
    ):
        result = patchknn(*line, *more)
        assert result.code == code
        assert result.out == ""
        assert said in result.err
    assert (tmp_path / "mine" / "index.html").read_text() == "my own page"


def test_without_answers_no_page_is_written(patchknn: Run, place: Path, tmp_path: Path) -> None:
    line = ("query", place / "archive", tmp_path / "none.png", "--report", tmp_path / "report")
    result = patchknn(*line)
    assert result.code == 1
    assert "is not written: no query was answered" in result.err
    assert not (tmp_path / "report").exists()
