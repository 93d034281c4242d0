"""Who answers in an evaluation: the search that was asked for, other first stages, sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import UsageError
from patchknn.evaluation.comparison.sweeps import COLUMNS, Sweep, sweep_rows, swept
from patchknn.evaluation.evaluate import METHOD, Contestant
from patchknn.evaluation.sections import Section
from patchknn.evaluation.ways import Ways, in_this_process, spread
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.evaluation.evaluation import Evaluation
    from patchknn.jobs.cluster import Cluster

_COARSE = {"patchknn": "hamming", "l2": "l2", "annoy": "annoy"}


def ways_to_search(
    snapshot: Snapshot,
    settings: SearchSettings,
    cluster: Cluster | None,
    *,
    yardstick: bool = True,
) -> Ways:
    """The ways in this process, or in the workers of a cluster."""
    if cluster is None:
        return in_this_process(snapshot, settings, yardstick=yardstick)
    from patchknn.cli.clusters import spread_over

    ways = spread(snapshot, settings, spread_over(cluster, snapshot))
    return ways if yardstick else ways._replace(exhaustive=None)


def method_contestants(
    snapshot: Snapshot, settings: SearchSettings, methods: Sequence[str], cluster: Cluster | None
) -> list[Contestant]:
    """The search that was asked for, and those of ``methods`` (patchknn, l2, annoy) beside it.

    These have another first stage and all else in common (paper A's baseline is l2); the
    exhaustive search, which hangs on neither, goes with the first. Raises UsageError where a
    method is none of these.
    """
    contestants = [Contestant(METHOD, settings, ways_to_search(snapshot, settings, cluster))]
    for method in dict.fromkeys(methods):
        if method not in _COARSE:
            message = f"--method {method} is none of {', '.join(_COARSE)}."
            raise UsageError(message)
        coarse = _COARSE[method]
        if coarse != settings.coarse:
            changed = SearchSettings(**{**settings._asdict(), "coarse": coarse})
            ways = ways_to_search(snapshot, changed, cluster, yardstick=False)
            contestants.append(Contestant(f"coarse-{coarse}", changed, ways))
    return contestants


def compared_contestant(
    other: Snapshot, settings: SearchSettings, cluster: Cluster | None
) -> Contestant:
    """The same search in another archive, which is asked the same queries by its own encoder."""
    return Contestant(
        f"{METHOD} on {other.path}", settings, ways_to_search(other, settings, cluster)
    )


def sweep_contestants(
    snapshot: Snapshot, settings: SearchSettings, sweeps: Sequence[Sweep], cluster: Cluster | None
) -> list[Contestant]:
    """Those of all sweeps, one after the other."""

    def ways(changed: SearchSettings) -> Ways:
        return ways_to_search(snapshot, changed, cluster, yardstick=False)

    return [one for sweep in sweeps for one in swept(snapshot, settings, sweep, ways)]


def sweep_section(
    sweeps: Sequence[Sweep], evaluations: Sequence[Evaluation], replicates: int, seed: int
) -> list[Section]:
    """What came of ``sweep_contestants``, as a table; nothing where nothing was swept."""
    rest, rows = list(evaluations), []
    for sweep in sweeps:
        count = len(sweep.values)
        rows += sweep_rows(sweep, rest[:count], replicates, seed)
        rest = rest[count:]
    return [Section("sweeps", "Swept, all else as it is", COLUMNS, rows)] if rows else []
