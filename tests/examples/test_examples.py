"""The shell pipelines of examples/ run as they stand; only ``sbatch`` has a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_PIXELS = 64

# Runs the tasks of an array one after another as local processes, with Slurm's variables.
_SBATCH = """#!/usr/bin/env bash
set -euo pipefail
for argument in "$@"; do
  case $argument in
    --array=1-*) tasks=${argument#--array=1-} ;;
    --parsable | --dependency=*) ;;
    *) script=$argument ;;
  esac
done
echo "$*" >> "$SBATCH_LOG"
for task in $(seq "$tasks"); do
  SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task bash "$script" >> "$SBATCH_LOG.$task" 2>&1 &
done
wait
echo 7
"""

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="the examples need jq")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """A PATH with this installation's patchknn and a stand-in for sbatch."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "patchknn").write_text(f'#!/bin/sh\nexec {sys.executable} -m patchknn "$@"\n')
    (folder / "sbatch").write_text(_SBATCH)
    for file in folder.iterdir():
        file.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "SBATCH_LOG": str(folder / "log"),
        "MPP": "1.0",
    }


def _run(commands, *words, cwd, code=0):
    finished = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=commands, capture_output=True, text=True
    )
    assert finished.returncode == code, finished.stderr
    return finished


@pytest.fixture(scope="module")
def project(tmp_path_factory, commands):
    """Two slides, and an encoder fitted on their tiles."""
    folder = tmp_path_factory.mktemp("project")

    def patchknn(*words):
        _run(commands, "patchknn", *words, cwd=folder)

    patchknn("simulate", "slides", "slides", "--slides", 2, "--patients", 2, "--size-px", 768)
    patchknn("tile", "slides/slides.csv", "-o", "tiles", "--size", _PIXELS, "--mpp", 1)
    patchknn(
        *("train", "tiles", "-o", "encoder", "--backbone", "test_resnet"),
        *("--loss", "none", "--size", _PIXELS, "--bits", 16),
    )
    return folder


@pytest.fixture(scope="module")
def archive(project, commands):
    words = ("embed", "tiles", "--encoder", "encoder", "--archive", "archive")
    _run(commands, "patchknn", *words, cwd=project)
    return project / "archive"


def test_triage_lists_answers_doubtful_first_and_what_it_cannot_read(
    project, archive, commands, tmp_path
):
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 255, (_PIXELS, _PIXELS, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number} ü.png")
    (tmp_path / "text.png").write_text("not an image")
    script = _EXAMPLES / "triage.sh"
    finished = _run(commands, script, archive, tmp_path, cwd=project, code=3)
    header, *rows = [line.split("\t") for line in finished.stdout.splitlines()]
    assert header[0] == "confidence"
    assert len(rows) == 3
    confidences = [float(row[0]) for row in rows]
    assert confidences == sorted(confidences)
    assert {row[-1] for row in rows} == {str(tmp_path / f"{n} ü.png") for n in range(3)}
    assert "text.png" in finished.stderr


@pytest.mark.timeout(900)  # some eighty processes
def test_ten_nights_add_correct_compact_verify_and_report(project, commands, tmp_path):
    inbox, archive = tmp_path / "inbox", tmp_path / "archive"
    inbox.mkdir()
    first, second = sorted((project / "slides").glob("*.tiff"))
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("id,label,by\n")
    words = (_EXAMPLES / "nightly_update.sh", inbox, project / "encoder", archive, corrections)

    def night(code=0):
        finished = _run(commands, *words, cwd=tmp_path, code=code)
        return json.loads(finished.stdout), finished.stderr

    def listed():
        out = _run(commands, "patchknn", "archive", "list", archive, cwd=tmp_path).stdout
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
    history = _run(commands, "patchknn", "archive", "log", archive, "--labels", cwd=tmp_path).stdout
    assert {row["id"] for row in map(json.loads, history.splitlines())} == set(corrected)


def _slide_of_its_own(slide, copy, number):
    """The same picture under another name is another file, as slides are."""
    shutil.copy(slide, copy)
    with copy.open("ab") as file:
        file.write(bytes([number]) * 32)


def test_corrected_labels_become_a_manifest_that_can_be_embedded(
    project, archive, commands, tmp_path
):
    listed = _run(commands, "patchknn", "archive", "list", archive, cwd=project).stdout
    patch = json.loads(listed.splitlines()[0])["id"]
    (tmp_path / "corrections.csv").write_text(f"id,label\n{patch},TUM\n")
    out = tmp_path / "corrected.tsv"
    script = _EXAMPLES / "correct_labels.sh"
    finished = _run(commands, script, archive, tmp_path / "corrections.csv", out, cwd=project)
    assert "1 labels changed" in finished.stderr
    words = ("embed", out, "--encoder", "encoder", "--archive", tmp_path / "again")
    _run(commands, "patchknn", *words, cwd=project)
    labels = _run(commands, "patchknn", "archive", "list", tmp_path / "again", cwd=project).stdout
    again = {row["id"]: row["label"] for row in map(json.loads, labels.splitlines())}
    before = {row["id"]: row["label"] for row in map(json.loads, listed.splitlines())}
    assert again == {**before, patch: "TUM"}


def test_a_slurm_array_gives_the_archive_of_one_process(project, archive, commands, tmp_path):
    script = _EXAMPLES / "slurm" / "submit.sh"
    words = (script, project / "slides", project / "encoder", tmp_path / "archive", 3)
    finished = _run(commands, *words, cwd=tmp_path)
    assert finished.stdout == "7\n"
    submitted = Path(commands["SBATCH_LOG"]).read_text().splitlines()
    assert [line.split()[1] for line in submitted] == ["--array=1-3", "--array=1-3"]
    assert "--dependency=afterany:7" in submitted[1]

    def rows(folder):
        listed = _run(commands, "patchknn", "archive", "list", folder, cwd=tmp_path).stdout
        found = map(json.loads, listed.splitlines())
        return {row["id"]: row["code"] for row in found}

    made, expected = rows(tmp_path / "archive"), rows(archive)
    assert made.keys() == expected.keys()
    assert len(made) > 20
    verified = _run(commands, "patchknn", "archive", "verify", tmp_path / "archive", cwd=tmp_path)
    assert verified.returncode == 0


@pytest.mark.parametrize("script", sorted(_EXAMPLES.rglob("*.s[hb]*")), ids=lambda path: path.name)
def test_every_script_parses_and_says_its_usage(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    named = [_EXAMPLES / "README.md", script.parent / "README.md"]
    described = "".join(file.read_text() for file in named if file.is_file())
    assert script.name in described or script.suffix == ".sbatch"
    if text.startswith("# shellcheck shell=bash\n"):  # its functions are for other scripts
        assert "to be sourced" in text
        return
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
