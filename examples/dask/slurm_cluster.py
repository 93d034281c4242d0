"""A Dask cluster of Slurm jobs, one worker each, for one line of patchknn.

    python slurm_cluster.py --jobs 16 --cpus 8 --gpus 1 -- embed tiles -e encoder -a archive

Runs where jobs can be submitted from, such as a login node, and ends with the line. Workers are
used as the queue starts them; one that is preempted is replaced, and what it had in hand is done
by another. Needs `pip install 'patchknn[dask]' dask-jobqueue`; partition and account are --queue
and --account, or what ~/.config/dask/jobqueue.yaml says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster


def main() -> int:
    """Start the cluster, run the line, and let the jobs go; the line's exit code."""
    asked = _arguments()
    environment = {"OMP_NUM_THREADS": asked.cpus, "HF_HUB_OFFLINE": 1}
    with SLURMCluster(
        cores=1,  # a worker does one thing at a time, with all the processors of its job
        processes=1,
        job_cpu=asked.cpus,
        memory=asked.memory,
        walltime=asked.walltime,
        queue=asked.queue,
        account=asked.account,
        interface=asked.interface,
        job_extra_directives=[f"--gpus={asked.gpus}"] if asked.gpus else [],
        job_script_prologue=[f"export {name}={value}" for name, value in environment.items()],
        log_directory=str(asked.logs),
        scheduler_options={"dashboard_address": ":0"},
    ) as cluster:
        # Kept at that number: a job that was preempted or has ended is submitted again.
        cluster.adapt(minimum_jobs=asked.jobs, maximum_jobs=asked.jobs)
        line = ["-m", "patchknn", *asked.line, "--dask", cluster.scheduler_address]
        return subprocess.call([sys.executable, *line])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=8, help="of a job")
    parser.add_argument("--gpus", type=int, default=0, help="of a job")
    parser.add_argument("--memory", default="32GB", help="of a job")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--queue", help="the partition")
    parser.add_argument("--account")
    parser.add_argument("--interface", help="of the network between nodes, such as ib0")
    parser.add_argument("--logs", type=Path, default=Path("dask-logs"))
    parser.add_argument("line", nargs="+", help="-- and a line of patchknn, without its name")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
