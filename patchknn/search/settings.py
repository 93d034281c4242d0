"""What a search may be told, checked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from patchknn.errors import UsageError

EXCLUSIONS = ("none", "self", "slide", "patient")
COARSE_STAGES = ("hamming", "l2", "annoy")
GROUPS = ("slide", "patient")


class _Fields(NamedTuple):
    k: int = 10
    radius: int = 1
    max_radius: int | None = None
    exclude_same: str = "self"
    labels: frozenset[str] | None = None
    labelled_only: bool = False
    max_per: tuple[str, int] | None = None
    coarse: str = "hamming"
    candidates: int = 100
    min_neighbours: int | None = None
    abstain_below: float | None = None
    where: str | None = None


class SearchSettings(_Fields):
    """The settings of a two-stage search and of the vote.

    ``radius`` and ``max_radius`` are Hamming radii in bits, inclusive; ``max_radius`` None means
    a quarter of the bits. ``labels`` None admits every row. ``max_per`` is ``("slide", N)`` or
    ``("patient", N)``. ``candidates`` is the pool of the coarse stages ``l2`` and ``annoy``.
    ``min_neighbours`` None means half of k, rounded up. ``where`` admits rows of the sources whose
    records make that SQL expression true. Raises UsageError naming the option that cannot be.
    """

    if not TYPE_CHECKING:  # who checks types takes the base's signature

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Settings that were checked."""
            settings = super().__new__(cls, *args, **kwargs)
            for problem in settings._problems():
                raise UsageError(problem)
            return settings

    def _problems(self) -> list[str]:
        problems = []
        if self.k < 1:
            problems.append(f"--k {self.k} asks for no neighbours: give 1 or more.")
        if self.radius < 0:
            problems.append(f"--radius {self.radius} is negative: give 0 bits or more.")
        if self.max_radius is not None and self.max_radius < self.radius:
            problems.append(
                f"--max-radius {self.max_radius} is smaller than --radius {self.radius}: "
                "the ball can only be widened."
            )
        for option, value, choices in (
            ("--exclude-same", self.exclude_same, EXCLUSIONS),
            ("--coarse", self.coarse, COARSE_STAGES),
            ("--max-per", self.max_per[0] if self.max_per else GROUPS[0], GROUPS),
        ):
            if value not in choices:
                problems.append(f"{option} {value} is none of {', '.join(choices)}.")
        if self.max_per is not None and self.max_per[1] < 1:
            problems.append(f"--max-per {self.max_per[0]} {self.max_per[1]} admits none: give 1+.")
        if self.coarse != "hamming" and self.candidates < self.k:
            problems.append(
                f"--candidates {self.candidates} is fewer than --k {self.k}: give at least as many."
            )
        if self.min_neighbours is not None and not 0 <= self.min_neighbours <= self.k:
            problems.append(
                f"--min-neighbours {self.min_neighbours} is not between 0 and --k {self.k}."
            )
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            problems.append(f"--abstain-below {self.abstain_below} is not between 0 and 1.")
        return problems

    def widest_radius(self, bits: int) -> int:
        """The radius up to which a ball over codes of ``bits`` bits is widened."""
        if self.max_radius is None:
            return max(self.radius, bits // 4)
        return min(self.max_radius, bits)

    @property
    def votes_needed(self) -> int:
        """Fewer votes than this mark an answer for review."""
        return (self.k + 1) // 2 if self.min_neighbours is None else self.min_neighbours
