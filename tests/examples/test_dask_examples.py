"""Dask clusters of Slurm jobs, as examples/dask starts them, with a stand-in for Slurm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue")

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "dask"
pytestmark = pytest.mark.timeout(600)


def _ids(run, archive, project):
    listed = run("patchknn", "archive", "list", archive, cwd=project).stdout
    return {(row["id"], row["label"]) for row in map(json.loads, listed.splitlines())}


def _line(project, archive):
    return "embed", project / "tiles", "-e", project / "encoder", "-a", archive, "--device", "cpu"


def test_one_job_is_its_own_cluster(cluster, run, project, archive, tmp_path):
    script = tmp_path / "job.sbatch"
    words = " ".join(map(str, _line(project, tmp_path / "spread")))
    script.write_text(
        "#!/usr/bin/env bash\n#SBATCH --ntasks=4\n#SBATCH --output=job.out\nset -euo pipefail\n"
        f"srun --ntasks=4 {sys.executable} {_EXAMPLES / 'slurm_runner.py'} {words}\n"
    )
    run("sbatch", "--wait", script, cwd=tmp_path, **cluster.environment)
    told = (tmp_path / "job.out").read_text()
    assert '"failed": 0' in told, told
    assert _ids(run, tmp_path / "spread", project) == _ids(run, archive, project)


def test_a_cluster_of_jobs_does_a_line_and_lets_them_go(cluster, run, project, archive, tmp_path):
    finished = run(
        *(sys.executable, _EXAMPLES / "slurm_cluster.py", "--jobs", 2, "--cpus", 1),
        *("--memory", "4GB", "--", *_line(project, tmp_path / "spread")),
        cwd=tmp_path,
        **cluster.environment,
    )
    assert json.loads(finished.stdout.splitlines()[-1])["failed"] == 0
    assert _ids(run, tmp_path / "spread", project) == _ids(run, archive, project)
    waiting = run("squeue", "--noheader", "--format=%i", cwd=tmp_path, **cluster.environment)
    assert waiting.stdout.split() == []
