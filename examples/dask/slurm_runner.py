"""One Slurm job that is its own Dask cluster, for one line of patchknn.

    srun --ntasks 10 --cpus-per-task 8 python slurm_runner.py embed tiles -e encoder -a archive

Of its tasks the first is the scheduler, the second runs the line, and all others are workers. The
job has all its nodes or none: where a queue gives nodes one by one, see slurm_cluster.py.
Needs `pip install 'patchknn[dask]' dask-jobqueue`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from dask_jobqueue.slurm import SLURMRunner


def main() -> int:
    """Be what this task is to be; the line's exit code."""
    # A worker does one thing at a time, with all the processors of its task.
    os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    options = {"dashboard_address": ":0"}
    try:
        with SLURMRunner(scheduler_options=options, worker_options={"nthreads": 1}) as runner:
            line = ["-m", "patchknn", *sys.argv[1:], "--dask", str(runner.scheduler_file)]
            return subprocess.call([sys.executable, *line])
    except KeyboardInterrupt:  # by which the scheduler and the workers end when the line has
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
