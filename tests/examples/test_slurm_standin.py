"""The stand-in for Slurm does what Slurm does, as far as scripts depend on it."""

from __future__ import annotations

import signal
import subprocess

import pytest

_WAITS = """
trap 'echo shell got USR1' USR1
trap 'echo shell got TERM' TERM
srun --ntasks=2 bash -c 'trap "echo task got USR1; exit 75" USR1; echo ready; sleep 30 & wait' &
until wait; do :; done
"""


@pytest.fixture
def sbatch(cluster, tmp_path):
    """``sbatch(lines, *options)``: submit a script of these lines; what sbatch prints."""

    def submit(lines, *options, code=0):
        script = tmp_path / "script.sh"
        script.write_text(f"#!/usr/bin/env bash\n{lines}\n")
        finished = subprocess.run(
            ["sbatch", *options, script.name],
            cwd=tmp_path,
            env=cluster.environment,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == code, finished.stderr
        return finished.stdout if code == 0 else finished.stderr

    return submit


def _states(cluster):
    return {job.name: job.state for job in cluster.jobs}


def test_a_script_is_copied_and_told_of_its_job(cluster, sbatch, tmp_path):
    lines = '#SBATCH --cpus-per-task=3 --job-name=mine\necho "$0 $SLURM_JOB_NAME"\n#SBATCH --mem=1G'
    assert sbatch(lines + '\necho "$SLURM_CPUS_PER_TASK $SLURM_SUBMIT_DIR"') == (
        "Submitted batch job 1\n"
    )
    cluster.wait()
    said = (tmp_path / "slurm-1.out").read_text().split()
    assert said[0] != str(tmp_path / "script.sh")
    assert said[1:] == ["mine", "3", str(tmp_path)]
    assert "mem" not in cluster.task("1").options  # a command came before it
    assert "unrecognized option '--tiem=1'" in sbatch("", "--tiem=1", code=1)


def test_the_tasks_of_an_array_have_numbers_and_files_of_their_own(cluster, sbatch, tmp_path):
    assert sbatch("echo $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_JOB_ID: $SLURM_JOB_ID",
                  "--parsable", "--array=1-3%2", "--wait") == "1\n"  # fmt: skip
    told = [(tmp_path / f"slurm-1_{task}.out").read_text() for task in (1, 2, 3)]
    assert told == ["1 of 1: 2\n", "2 of 1: 3\n", "3 of 1: 1\n"]


def test_dependencies_look_at_all_tasks(cluster, sbatch):
    sbatch("exit $((SLURM_ARRAY_TASK_ID == 2 ? 3 : 0))", "--array=1-2")
    for kind in ("afterok", "afterany", "afternotok"):
        sbatch("true", f"--dependency={kind}:1")
    cluster.wait()
    assert _states(cluster) == {
        "1_1": "COMPLETED",
        "1_2": "FAILED",
        "3": "PENDING",
        "4": "COMPLETED",
        "5": "COMPLETED",
    }


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("B:USR1@120", "shell got USR1"), ("USR1@120", "task got USR1")],
)
def test_a_signal_goes_to_the_shell_or_to_the_tasks(cluster, sbatch, tmp_path, asked, expected):
    cluster.on("ready", lambda _: cluster.on("ready", cluster.warn))
    cluster.on("got USR1", cluster.cancel)
    sbatch(_WAITS, f"--signal={asked}")
    cluster.wait()
    printed = (tmp_path / "slurm-1.out").read_text().splitlines()
    said = [line for line in printed if "got USR1" in line]
    assert set(said) == {expected}
    assert cluster.task("1").state == "CANCELLED"


@pytest.mark.parametrize(("name", "code"), [("USR1", 75), ("TERM", 128 + signal.SIGKILL)])
def test_srun_hands_usr1_on_and_has_its_tasks_killed_at_a_sigterm(
    cluster, sbatch, tmp_path, name, code
):
    tell = 'trap "exit 75" USR1; touch "ready$SLURM_PROCID"; sleep 30 & wait'
    sbatch(
        f"srun --ntasks=2 bash -c '{tell}' & step=$!\n"
        f"until [ -e ready0 ] && [ -e ready1 ]; do read -rt 0.01 <> <(:) || :; done\n"
        f"kill -{name} $step; wait $step"
    )
    cluster.wait()
    assert cluster.task("1").code == code


@pytest.mark.parametrize(
    ("number", "restarts"),
    [("${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID", 0), ("$SLURM_JOB_ID", 1)],
)
def test_the_bare_number_of_an_array_requeues_all_of_it(
    cluster, sbatch, tmp_path, number, restarts
):
    lines = '[ "$SLURM_ARRAY_TASK_ID" = 1 ] || [ -n "${SLURM_RESTART_COUNT:-}" ] ||'
    sbatch(f'echo start\n{lines} {{ scontrol requeue {number}; sleep 30; }}',
           "--array=1-2", "--open-mode=append")  # fmt: skip
    cluster.wait()
    assert [job.restarts for job in cluster.jobs] == [restarts, 1]
    assert (tmp_path / "slurm-1_2.out").read_text() == "start\nstart\n"


def test_without_append_a_restart_begins_its_file_anew(cluster, sbatch, tmp_path):
    cluster.on("ready", cluster.lose_node)
    sbatch('echo "ready ${SLURM_RESTART_COUNT:-}"\n[ -n "${SLURM_RESTART_COUNT:-}" ] || sleep 30')
    cluster.wait()
    assert (tmp_path / "slurm-1.out").read_text() == "ready 1\n"


_CALLS_ITSELF_BACK = """
trap 'scontrol requeue $SLURM_JOB_ID' TERM
[ -z "${SLURM_RESTART_COUNT:-}" ] || exit 0
sleep 30 &
echo ready
wait
"""


def test_a_cancelled_job_that_requeues_itself_lives_on(cluster, sbatch):
    cluster.on("ready", cluster.cancel)
    sbatch(_CALLS_ITSELF_BACK)
    cluster.wait()
    assert (cluster.task("1").state, cluster.task("1").restarts) == ("COMPLETED", 1)


def test_what_ignores_the_end_is_killed(tmp_path, cluster, sbatch):
    cluster.kill_wait = 0.1
    cluster.on("ready", cluster.cancel)
    sbatch("trap '' TERM; echo ready; sleep 30")
    cluster.wait()
    assert (cluster.task("1").state, cluster.task("1").code) == ("CANCELLED", 128 + signal.SIGKILL)
