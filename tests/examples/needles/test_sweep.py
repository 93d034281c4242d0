"""The sweep in miniature, and that a network can learn what is drawn."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

# It imports what lies beside it, as a script does outside of tests.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
_TINY = ("--test", "16", "--batches", "4", "--width", "4")


def _started(scripts, *words):
    command = [sys.executable, scripts / "needles.py", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT)


def _run(scripts, *words):
    finished = _started(scripts, *words)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_trained_once_and_drawn(scripts, tmp_path):
    line = (tmp_path, "--ratios", "19%", "0.0625", "--train", 16, 32, "--poolings", "max", "mean")
    told = _run(scripts, *line, *_TINY)
    rows = _rows(tmp_path)
    assert len(rows) == 8
    assert {(row["size_px"], row["ratio"]) for row in rows} == {
        ("18", str((8 / 18) ** 2)),
        ("32", "0.0625"),
    }
    assert len({(row["ratio"], row["train"], row["pooling"]) for row in rows}) == 8
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert "| training images | max | mean |" in told
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert "object to image" in (tmp_path / "curve.svg").read_text()
    # Again with one pooling more: what is there stays.
    again = _run(scripts, *line, "attention", *_TINY)
    assert _rows(tmp_path)[:8] == rows
    assert len(_rows(tmp_path)) == 12
    assert " max, seed" not in again


def test_tissue_is_swept_alike(scripts, tmp_path):
    words = ("--kind", "tissue", "--object-px", 24, "--ratios", "19%", "--train", 16)
    _run(scripts, tmp_path, *words, "--poolings", "logsumexp", *_TINY)
    (row,) = _rows(tmp_path)
    assert (row["size_px"], row["clutter"]) == ("55", "0.15")


def test_what_cannot_be_drawn_is_one_sentence(scripts, tmp_path):
    finished = _started(scripts, tmp_path, "--object-px", 5)
    assert finished.returncode == 1
    assert finished.stderr.startswith("needles.py: --ratio ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.timeout(600)
def test_large_needles_are_found(scripts, tmp_path):
    """Two digits an image, a thousand images: right in far more cases than chance would be."""
    words = ("--ratios", "19%", "--train", 1000, "--poolings", "max", "--batches", 250)
    _run(scripts, tmp_path, *words, "--test", 400)
    (row,) = _rows(tmp_path)
    assert float(row["accuracy"]) > 0.8
