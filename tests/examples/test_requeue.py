"""What examples/slurm/requeue.sh does with signals, exit codes and restarts."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

_SLURM = Path(__file__).resolve().parents[2] / "examples" / "slurm"

# A child that ends with CODE when told, as patchknn does with 75; at a restart it is done at once.
_CHILD = """
[ "${SLURM_ARRAY_TASK_ID:-2}" = 2 ] || exit 0
[ -z "${SLURM_RESTART_COUNT:-}" ] || [ -n "${AGAIN:-}" ] || exit 0
trap 'exit "$CODE"' USR1 TERM
sleep 60 &
echo ready
wait
"""


@pytest.fixture
def submit(cluster, tmp_path):
    """``submit("requeueing", *options, CODE=75)``: the child under a function of requeue.sh."""

    def call(function, *options, **variables):
        script = tmp_path / "job.sbatch"
        script.write_text(
            "#!/usr/bin/env bash\n#SBATCH --signal=B:USR1@120 --open-mode=append\n"
            'set -euo pipefail\nsource "$SCRIPTS/requeue.sh"\n'
            f"{function} bash -c {shlex.quote(_CHILD)}\n"
            'echo "went on with ${failed:-}"\n'
        )
        values = {name: str(value) for name, value in variables.items()}
        subprocess.run(
            ["sbatch", *options, script.name],
            cwd=tmp_path,
            env={**cluster.environment, "SCRIPTS": str(_SLURM), **values},
            check=True,
        )

    return call


def _ended(cluster):
    cluster.wait()
    return {job.name: (job.state, job.restarts) for job in cluster.jobs}


@pytest.mark.parametrize("code", [75, 138, 143])
def test_what_saved_its_work_or_had_none_goes_back_into_the_queue(cluster, submit, code):
    cluster.on("ready", cluster.warn)
    submit("requeueing", CODE=code)
    assert _ended(cluster) == {"1": ("COMPLETED", 1)}


def test_of_an_array_the_task_alone(cluster, submit):
    cluster.on("ready", cluster.warn)
    submit("requeueing", "--array=1-2", CODE=75)
    ended = _ended(cluster)
    assert cluster.task("1_2").id == 1  # as the whole array
    assert ended == {"1_1": ("COMPLETED", 0), "1_2": ("COMPLETED", 1)}


def test_what_is_cancelled_saves_and_does_not_come_back(cluster, submit):
    cluster.on("ready", cluster.cancel)
    submit("requeueing", CODE=75)
    assert _ended(cluster) == {"1": ("CANCELLED", 0)}
    assert cluster.task("1").code == 75


def test_restarts_have_a_limit(cluster, submit):
    def warn(job):
        cluster.on("ready", warn)
        cluster.warn(job)

    cluster.on("ready", warn)
    submit("requeueing", CODE=75, AGAIN="yes", MAX_RESTARTS=2)
    assert _ended(cluster) == {"1": ("FAILED", 2)}
    job = cluster.task("1")
    assert job.code == 75
    assert "1 was restarted 2 times" in job.output.read_text()


@pytest.mark.parametrize(
    ("function", "code", "ends_with"), [("requeueing", 3, 3), ("carry_on requeueing", 3, 0)]
)
def test_inputs_that_failed_are_no_reason_to_start_again_or_to_stop(
    cluster, submit, function, code, ends_with
):
    cluster.on("ready", cluster.warn)
    submit(function, CODE=code)
    cluster.wait()
    job = cluster.task("1")
    assert (job.code, job.restarts) == (ends_with, 0)
    assert ("went on with 3" in job.output.read_text()) == (ends_with == 0)


def test_any_other_failure_stops(cluster, submit):
    cluster.on("ready", cluster.warn)
    submit("carry_on requeueing", CODE=1)
    cluster.wait()
    assert (cluster.task("1").code, cluster.task("1").restarts) == (1, 0)
    assert "went on" not in cluster.task("1").output.read_text()
