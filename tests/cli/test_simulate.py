import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_slides_are_listed_as_they_are_written(patchknn: Run, tmp_path: Path) -> None:
    out = tmp_path / "made"
    arguments = ("--slides", 2, "--patients", 2, "--size-px", 320, "--seed", 1)
    result = patchknn("simulate", "slides", out, *arguments, "--format", "ndjson")
    assert result.code == 0
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["patient"] for row in rows] == ["P1", "P2"]
    assert all(Path(row["slide"]).is_file() for row in rows)
    assert sum(rows[0]["regions"].values()) == 9
    assert result.err == f"simulate: 2 done; their list is {out / 'slides.csv'}.\n"


def test_a_full_folder_needs_force(patchknn: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    line = ("simulate", "slides", tmp_path, "--slides", 1, "--patients", 1, "--size-px", 256)
    refused = patchknn(*line)
    assert refused.code == 1
    assert refused.out == ""
    expected = f"{tmp_path} is not empty; give --force to write into it, or another folder."
    assert refused.err == f"patchknn: {expected}\n"
    assert patchknn(*line, "--force").code == 0
    assert (tmp_path / "notes.txt").read_text() == "keep"
    assert (tmp_path / "slides.csv").is_file()


@pytest.mark.parametrize("wrong", [("--patients", 9), ("--size-px", 20), ("--mpp", 50)])
def test_settings_that_cannot_be_are_usage_errors(
    patchknn: Run, tmp_path: Path, wrong: tuple[str, int]
) -> None:
    result = patchknn("simulate", "slides", tmp_path / "x", "--slides", 8, *wrong)
    assert result.code == 2
    assert wrong[0] in result.err or "9 patients" in result.err


def test_needles_are_counted_by_split_and_the_same_line_again_draws_nothing(
    patchknn: Run, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    line = ("simulate", "needles", out, "--ratio", "4%", "--size", 64, "--images", 20)
    planned = patchknn(*line, "--dry-run", "--format", "ndjson")
    assert planned.err == "simulate: 20 planned; nothing is written.\n"
    assert not out.exists()
    result = patchknn(*line, "--format", "ndjson")
    assert result.code == 0
    assert result.out == planned.out
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["split"], row["needle"], row["clutter"]) for row in rows] == [
        ("train", 7, 7),
        ("val", 2, 2),
        ("test", 1, 1),
    ]
    assert rows[0]["ratio"] == (13 / 64) ** 2
    assert result.err == f"simulate: 20 done; listed in {out / 'manifest.csv'}.\n"
    assert len(list(out.rglob("*.png"))) == 20
    assert patchknn(*line, "--format", "ndjson").out == result.out
    other = patchknn(*line, "--needle", 5)
    assert other.code == 1
    assert "holds images of other settings (needle is 3, not 5)" in other.err


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("--ratio", "19"), "--ratio 19 is no share of an image: give 1% or 0.01, say."),
        (("--ratio", "tiny"), "--ratio tiny is no share of an image: give 1% or 0.01, say."),
        (("--ratio", "0.002%"), "give --size 1678 or more, or --ratio 1.6% or more."),
        (("--split", "70"), "--split 70 is not TRAIN/VAL or TRAIN/VAL/TEST, such as 70/15/15."),
        (("--images", "3"), "--images 3 cannot be half with a needle, half without"),
    ],
)
def test_needles_that_cannot_be_are_usage_errors(
    patchknn: Run, tmp_path: Path, wrong: tuple[str, str], sentence: str
) -> None:
    result = patchknn("simulate", "needles", tmp_path / "x", "--size", 64, *wrong)
    assert result.code == 2
    assert sentence in result.err
    assert not (tmp_path / "x").exists()
