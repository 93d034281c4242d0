"""The made-up cohort of examples/ is one that slides can be learnt from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.tasks.reading import Question

_SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "cohorts" / "simulate.py"


def test_it_writes_grids_and_their_table(tmp_path):
    command = [sys.executable, str(_SCRIPT), str(tmp_path / "out"), "--slides", "5"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    cohort = read_cohort(tmp_path / "out", Path(finished.stdout.strip()), Question())
    assert len(cohort.cases) == 5
