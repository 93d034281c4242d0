"""Whether several threads read the rows of one query faster than one does, found out on the way.

Where one thread takes all of the memory's bandwidth, as on small machines, a second only costs.
"""

from __future__ import annotations

_TRIALS = 6  # alternating at first
_RETRY = 64  # queries between two looks at what was slower
_FADES = 1.02  # per query: what was measured once does not hold for ever


class Pace:
    """The best time per byte with one thread, and with several."""

    def __init__(self) -> None:
        self._best = [float("inf"), float("inf")]
        self._queries = 0

    def share(self) -> bool:
        """Whether the next query is to be shared."""
        self._queries += 1
        alone, together = self._best
        faster = together < alone
        if self._queries <= _TRIALS:
            return self._queries % 2 == 0
        return faster != (self._queries % _RETRY == 0)

    def took(self, seconds: float, n_bytes: int, *, shared: bool) -> None:
        """Note what a query took that was, or was not, shared."""
        rate = seconds / max(1, n_bytes)
        self._best[shared] = min(self._best[shared] * _FADES, rate)
