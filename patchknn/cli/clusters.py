"""What ``query`` and ``evaluate`` give to a cluster: shares of an archive, and patches to embed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchknn.archive.snapshot import Snapshot
from patchknn.search.shares import shares_of
from patchknn.search.spread import Spreading

if TYPE_CHECKING:
    from patchknn.indexing.remote import RemoteEncoder
    from patchknn.jobs.cluster import Cluster


def spread_over(cluster: Cluster, snapshot: Snapshot) -> Spreading:
    """A share for each worker, which is asked for it as long as it is there.

    So a worker reads its share alone, and has it in memory after the first queries.
    """
    count = max(cluster.workers, 1)
    homes = {share.places: number for number, share in enumerate(shares_of(snapshot, count))}

    def home(task: Any) -> tuple[int, int]:
        share = task.asked.share if hasattr(task, "asked") else task.share
        return homes[share.places], len(homes)

    def map_tasks(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        return cluster.map(function, tasks, home)

    return Spreading(map_tasks, count, cluster.cpus_of_a_worker)


def remote_encoder(snapshot: Snapshot, directory: Path | None, device: str | None) -> RemoteEncoder:
    """The archive's encoder, or the same kept elsewhere, as workers load it.

    Raises ConflictError where ``directory`` holds another.
    """
    from patchknn.evaluation.queries import archive_encoder
    from patchknn.indexing.remote import RemoteEncoder

    bundle, stored = archive_encoder(snapshot, directory), snapshot.settings
    return RemoteEncoder(
        bundle.directory.absolute(),
        bundle.fingerprint,
        device,
        stored.precision,
        stored.orientations,
    )
