"""Finding a Dask cluster: by its scheduler's address or file, or of processes of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchknn import __version__
from patchknn.errors import ConflictError, InputError, UsageError
from patchknn.files import read_json
from patchknn.jobs.cluster import Cluster
from patchknn.jobs.cpus import available_cpus

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 30
_WORKER_SECONDS = 600


@contextmanager
def connected(where: str, warn: Callable[[str], None] = lambda _: None) -> Iterator[Cluster]:
    """The cluster at a scheduler's address, or of its file, or ``local:N`` processes of its own.

    Waits up to ten minutes for a first worker, which a queue may hold back; ``warn`` is told where
    none is left later. Raises UsageError where Dask is not installed, InputError where nobody
    answers, ConflictError where a worker has another version of patchknn.
    """
    try:
        from distributed import Client
    except ImportError:
        message = "--dask needs Dask, which is not installed: pip install 'patchknn[dask]'."
        raise UsageError(message) from None
    # What its parts say to each other, such as while they end, is nothing to a user.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        try:
            if where.startswith("local:"):
                client = stack.enter_context(Client(stack.enter_context(_local(where))))
            else:
                client = stack.enter_context(
                    Client(_address(where), timeout=_CONNECT_SECONDS, name="patchknn")
                )
        except (OSError, ValueError, TimeoutError) as error:
            message = (
                f"--dask {where}: no Dask scheduler answers there ({str(error).rstrip('.')}); give "
                "its address, its --scheduler-file, or local:N."
            )
            raise InputError(message) from None
        _await_workers(client, where)
        yield Cluster(client, where, warn)


def _address(where: str) -> str:
    """Of a scheduler: as it is given, or as its file says."""
    if not Path(where).is_file():
        return where
    address = read_json(Path(where)).get("address")
    if not isinstance(address, str):
        message = f"--dask {where}: it is not the file of a Dask scheduler, which has its address."
        raise InputError(message)
    return address


@contextmanager
def _local(where: str) -> Iterator[Any]:
    from distributed import LocalCluster

    count = where.removeprefix("local:")
    if not count.isdigit() or int(count) < 1:
        message = f"--dask {where}: local:N takes a number of processes, as in local:4."
        raise UsageError(message)
    # Dask gives each worker one thread of OpenMP unless it is told otherwise.
    given = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(max(available_cpus() // int(count), 1)))
    try:
        with LocalCluster(
            n_workers=int(count),
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster
    finally:
        if not given:
            del os.environ["OMP_NUM_THREADS"]


def _await_workers(client: Client, where: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        message = f"--dask {where}: the scheduler has no worker; start some, and run this again."
        raise InputError(message) from None
    try:
        versions = set(client.run(_version).values())
    except Exception as error:  # what a worker cannot even read comes as text
        if "No module named" not in str(error):
            raise
        message = (
            f"--dask {where}: patchknn cannot be imported where the workers run ({error}); start "
            "them in an environment that has it."
        )
        raise ConflictError(message) from None
    if versions - {__version__}:
        others = ", ".join(sorted(versions - {__version__}))
        message = f"--dask {where}: workers have patchknn {others}, and this is {__version__}."
        raise ConflictError(message)


def _version() -> str:
    import patchknn

    return patchknn.__version__
