"""The shell pipelines of examples/ run as they stand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_PIXELS = 64

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="the examples need jq")


def test_triage_lists_answers_doubtful_first_and_what_it_cannot_read(
    project, archive, run, tmp_path
):
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 255, (_PIXELS, _PIXELS, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number} ü.png")
    (tmp_path / "text.png").write_text("not an image")
    script = _EXAMPLES / "triage.sh"
    finished = run(script, archive, tmp_path, cwd=project, code=3)
    header, *rows = [line.split("\t") for line in finished.stdout.splitlines()]
    assert header[0] == "confidence"
    assert len(rows) == 3
    confidences = [float(row[0]) for row in rows]
    assert confidences == sorted(confidences)
    assert {row[-1] for row in rows} == {str(tmp_path / f"{n} ü.png") for n in range(3)}
    assert "text.png" in finished.stderr


@pytest.mark.timeout(900)  # some eighty processes
def test_ten_nights_add_correct_compact_verify_and_report(project, run, tmp_path):
    inbox, archive = tmp_path / "inbox", tmp_path / "archive"
    inbox.mkdir()
    first, second = sorted((project / "slides").glob("*.tiff"))
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("id,label,by\n")
    words = (_EXAMPLES / "nightly_update.sh", inbox, project / "encoder", archive, corrections)

    def night(code=0):
        finished = run(*words, cwd=tmp_path, code=code)
        return json.loads(finished.stdout), finished.stderr

    def listed():
        out = run("patchknn", "archive", "list", archive, cwd=tmp_path).stdout
        return {row["id"]: row["label"] for row in map(json.loads, out.splitlines())}

    shutil.copy(first, inbox / "night1.tiff")
    report, _ = night()
    assert report["added"] == report["rows"] > 0
    per_slide = report["rows"]
    again, _ = night()
    assert (again["added"], again["snapshot"]) == (0, report["snapshot"])
    for number in range(3, 10):
        _slide_of_its_own(second, inbox / f"night{number}.tiff", number)
        patch = sorted(listed())[number]
        with corrections.open("a") as file:
            file.write(f"{patch},C{number},Ann\n")
        report, _ = night()
        assert report["added"] > 0
        assert report["shards"] == 1
    (inbox / "broken.svs").write_bytes(b"")
    report, told = night(code=3)
    assert "broken.svs" in told
    assert report["sources"] == 8
    assert report["rows"] == len(listed()) > per_slide
    corrected = dict(line.split(",")[:2] for line in corrections.read_text().splitlines()[1:])
    assert {patch: listed()[patch] for patch in corrected} == corrected
    history = run("patchknn", "archive", "log", archive, "--labels", cwd=tmp_path).stdout
    assert {row["id"] for row in map(json.loads, history.splitlines())} == set(corrected)


def _slide_of_its_own(slide, copy, number):
    """The same picture under another name is another file, as slides are."""
    shutil.copy(slide, copy)
    with copy.open("ab") as file:
        file.write(bytes([number]) * 32)


def test_corrected_labels_become_a_manifest_that_can_be_embedded(project, archive, run, tmp_path):
    listed = run("patchknn", "archive", "list", archive, cwd=project).stdout
    patch = json.loads(listed.splitlines()[0])["id"]
    (tmp_path / "corrections.csv").write_text(f"id,label\n{patch},TUM\n")
    out = tmp_path / "corrected.tsv"
    script = _EXAMPLES / "correct_labels.sh"
    finished = run(script, archive, tmp_path / "corrections.csv", out, cwd=project)
    assert "1 labels changed" in finished.stderr
    words = ("embed", out, "--encoder", "encoder", "--archive", tmp_path / "again")
    run("patchknn", *words, cwd=project)
    labels = run("patchknn", "archive", "list", tmp_path / "again", cwd=project).stdout
    again = {row["id"]: row["label"] for row in map(json.loads, labels.splitlines())}
    before = {row["id"]: row["label"] for row in map(json.loads, listed.splitlines())}
    assert again == {**before, patch: "TUM"}


_SCRIPTS = sorted(_EXAMPLES.rglob("*.s[hb]*"))


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_every_script_parses_and_says_its_usage(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    named = [_EXAMPLES / "README.md", script.parent / "README.md"]
    described = "".join(file.read_text() for file in named if file.is_file())
    assert script.name in described
    if text.startswith("# shellcheck shell=bash\n"):  # its functions are for other scripts
        assert "to be sourced" in text
        return
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "# usage: " in text
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="pip install '.[test]' brings it")
def test_shellcheck_has_nothing_to_say_of_any_script():
    words = ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR"]
    finished = subprocess.run([*words, *map(str, _SCRIPTS)], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "")
