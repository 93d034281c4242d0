"""The approximate variant of the L2 coarse stage: Annoy's trees over the hash vectors.

The only file that imports annoy. Annoy compiles for the machine that builds it and may die of an
illegal instruction on another (spotify/annoy#217, #472), so it is tried in a process of its own
before it is used in this one.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.errors import PatchknnError
from patchknn.search.coarse_l2 import Vectors, snapshot_hash_vectors
from patchknn.search.pool import Demand, Pool

_TREES = 32
_SEED = 1
_PROBE = """
import random
from annoy import AnnoyIndex
index = AnnoyIndex(16, "euclidean")
for row in range(200):
    index.add_item(row, [random.gauss(0, 1) for _ in range(16)])
index.build(4)
assert len(index.get_nns_by_item(0, 5)) == 5
"""


class AnnoyStage:
    """Finds candidates by Annoy; the index lives in memory and is made anew for each search.

    Raises PatchknnError where Annoy is not installed or does not work on this machine.
    """

    def __init__(self, snapshot: Snapshot, bundle: Bundle) -> None:
        check_annoy()
        from annoy import AnnoyIndex

        vectors = snapshot_hash_vectors(snapshot, bundle)
        self._n_rows = len(vectors)
        self._index: Any = AnnoyIndex(bundle.description.bits, "euclidean")
        self._index.set_seed(_SEED)
        for row, vector in enumerate(vectors):
            self._index.add_item(row, vector.tolist())
        if self._n_rows:
            self._index.build(_TREES, 1)  # one thread: the same trees every time

    def find(self, vector: Vectors, candidates: int, demand: Demand) -> Pool:
        """About the nearest ``candidates`` rows that ``demand`` admits, by L2 to ``vector`` (K,).

        Annoy knows no filters: it is asked for more rows until enough of them remain.
        """
        size = 2 * candidates
        while True:
            wanted = min(size, self._n_rows)
            found = self._index.get_nns_by_vector(vector.tolist(), wanted) if wanted else []
            candidates_found = np.array(found, np.int64)
            ranked = candidates_found[demand.admits(candidates_found)]
            length = demand.pool_length(ranked, candidates)
            if length is not None or wanted == self._n_rows:
                pool = ranked[:length]
                return Pool(pool, widened=len(pool) > candidates)
            size *= 4


def check_annoy() -> None:
    """Build and search a small index in another process.

    Raises PatchknnError saying what to do where that fails.
    """
    import subprocess

    finished = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120, check=False
    )
    if finished.returncode == 0:
        return
    if "No module named" in finished.stderr:
        message = "--coarse annoy needs Annoy: pip install annoy, or use --coarse l2."
        raise PatchknnError(message)
    reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
    if finished.returncode < 0:
        reason = f"killed by {signal.Signals(-finished.returncode).name}"
    message = (
        f"Annoy does not work on this machine ({reason}): rebuild it here with pip install "
        "--force-reinstall --no-cache-dir --no-binary annoy annoy, or use --coarse l2."
    )
    raise PatchknnError(message)
