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
