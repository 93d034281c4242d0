"""The baselines beside ``evaluate``'s figures: which there are, and why others are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.errors import PatchknnError
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.queries import LabelledSet, archived_queries, content_of, patch_query
from patchknn.jobs.cpus import available_cpus
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.evaluation.baselines.baselines import Asked, Baselines, Method

FROZEN = "frozen"
EVERY = ("mean-colour", "colour-histogram", FROZEN)
# Pictures that are read in well under a minute: more are read where a baseline is asked for.
MOST_PICTURES = 10_000
# 2,000 pictures of 224 px: what a CPU takes through a network in some two minutes.
_MOST_CPU_PIXELS = 2_000 * 224**2
_NO_FEATURE = np.zeros(0)


class BaselineChoice(NamedTuple):
    """Names as they were given, none for the usual ones; and what ``frozen`` is made of.

    That is ``backbone`` (None: the encoder's own) with ``weights`` (None: timm's pretrained).
    ``pictures`` are how many have to be read where the names are the usual ones, 0 where they
    were given.
    """

    names: tuple[str, ...] = ()
    weights: Path | None = None
    backbone: str | None = None
    pictures: int = 0

    def chosen(self, pictures: int, *, shown: bool) -> BaselineChoice:
        """With the names of the baselines to judge, where they read so many ``pictures``.

        By default what is ``shown`` to people has them all, unless there are many pictures to
        read; scripts get what they ask for.
        """
        if self.names:
            every = "all" in self.names
            none = "none" in self.names
            names = [one for one in EVERY if not none and (every or one in self.names)]
            return self._replace(names=tuple(names))
        if not shown:
            return self
        if pictures > MOST_PICTURES:
            console.message(
                f"Baselines would read {pictures} pictures: ask for them by --baseline all, or by "
                "name."
            )
            return self
        return self._replace(names=EVERY, pictures=pictures)


class PictureSource(NamedTuple):
    """Where pictures lie now, and by how many readers and on what device they are looked at."""

    slides: Path | None = None
    default_mpp: float | None = None
    workers: int = 0
    device: str | None = None


@contextmanager
def baselines(
    snapshot: Snapshot, settings: SearchSettings, choice: BaselineChoice, where: PictureSource
) -> Iterator[Baselines | None]:
    """The baselines that were chosen, ready to answer; None where there are none."""
    names = choice.names
    if not names:
        yield None
        return
    from patchknn.evaluation.baselines.baselines import Baselines
    from patchknn.evaluation.baselines.picture_pool import PicturePool, any_picture

    with PicturePool(
        snapshot,
        where.slides,
        default_mpp=where.default_mpp,
        threads=where.workers or available_cpus(),
    ) as pool:
        if not any_picture(pool):
            console.warn(
                f"{', '.join(names)} left out: none of the pictures of {snapshot.path} is found; "
                "say --slides DIR where its images lie."
            )
            yield None
            return
        methods = _methods(snapshot, choice, where.device)
        with console.ProgressBar(len(snapshot), "pictures", "row") as bar:
            made = Baselines(pool, methods, settings, bar.advance) if methods else None
        yield made


def asked_of(snapshot: Snapshot, asked: LabelledSet | None, judged: Evaluation) -> Iterator[Asked]:
    """The queries that were ``judged``, as baselines take them, in their order."""
    from patchknn.evaluation.baselines.baselines import Asked

    if asked is None:
        rows = set(judged.outcomes.row.tolist())
        yield from (Asked(query) for query in archived_queries(snapshot) if query.row in rows)
        return
    answered = set(judged.outcomes.queries)
    content = lru_cache(maxsize=256)(content_of)
    for patch in asked.patches:
        if patch.id in answered:
            yield Asked(patch_query(patch, _NO_FEATURE, content(patch.path)), patch)


def _methods(snapshot: Snapshot, choice: BaselineChoice, device: str | None) -> list[Method]:
    from patchknn.evaluation.baselines.baselines import COLOUR_HISTOGRAM, MEAN_COLOUR

    methods = [one for one in (MEAN_COLOUR, COLOUR_HISTOGRAM) if one.name in choice.names]
    if FROZEN in choice.names:
        try:
            methods += _frozen(snapshot, choice, device)
        except PatchknnError as error:
            say = console.message if choice.pictures else console.warn
            say(f"{FROZEN} is missing: {error}")
    return methods


def _frozen(snapshot: Snapshot, choice: BaselineChoice, device: str | None) -> list[Method]:
    """The method, or none where it would take long and was not asked for."""
    from patchknn.evaluation.baselines.baselines import Method
    from patchknn.evaluation.baselines.frozen import FrozenFeatures

    by_itself = choice.pictures > 0
    made = FrozenFeatures(snapshot, choice.backbone, choice.weights, device, download=not by_itself)
    if by_itself and made.on_cpu and choice.pictures * made.size**2 > _MOST_CPU_PIXELS:
        console.message(
            f"{FROZEN} would take {choice.pictures} pictures through {made.backbone} on a CPU: ask "
            "for it by --baseline all."
        )
        return []
    weights = None if choice.weights is None else str(choice.weights)
    return [Method(FROZEN, made.dim, made, {"backbone": made.backbone, "weights": weights})]
