"""The baseline that keeps one honest: nearest neighbours by the mean colour of the patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.datasets.patches import Patch
from patchknn.evaluation.evaluate import report_settings
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.exhaustive import ExhaustiveSearch, Found
from patchknn.evaluation.outcomes import Outcome, OutcomeCollector
from patchknn.evaluation.pictures import Picture, PictureFinder
from patchknn.evaluation.queries import content_of, patch_query
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings
from patchknn.search.votes import tally

METHOD = "mean-colour"
_BLOCK = 128

Colours = npt.NDArray[np.float64]


def mean_colour(picture: Picture | None) -> Colours:
    """Mean R, G, B (3,) of a picture (H, W, 3) uint8; NaN where there is none."""
    if picture is None:
        return np.full(3, np.nan)
    return np.asarray(picture.reshape(-1, 3).mean(axis=0, dtype=np.float64))


def archive_colours(snapshot: Snapshot, slides_dir: Path | None = None) -> list[Colours]:
    """Mean colours (n, 3) of the rows of each shard; NaN where a patch cannot be read any more."""
    with PictureFinder(snapshot, slides_dir) as finder:
        return [_shard_colours(shard, finder) for shard in snapshot.shards]


def evaluate_mean_colour(
    snapshot: Snapshot,
    patches: Sequence[Patch],
    settings: SearchSettings,
    slides_dir: Path | None = None,
) -> Evaluation:
    """Labelled patches put to the archive with the same k, filters and vote, by colour alone.

    Rows whose picture is gone cannot be found, and a patch without one has no neighbours: both
    are counted in the report's settings as ``unread_rows`` and ``unread_queries``.
    """
    stored = archive_colours(snapshot, slides_dir)
    search = ExhaustiveSearch(snapshot, settings, stored)
    outcomes = OutcomeCollector(settings.k, snapshot.classes)
    unread = 0
    with PictureFinder(snapshot, slides_dir) as finder:
        for start in range(0, len(patches), _BLOCK):
            block = patches[start : start + _BLOCK]
            queries = [patch_query(p, np.empty(0), content_of(p.path)) for p in block]
            colours = np.stack([mean_colour(finder.of_patch(patch)) for patch in block])
            readable = np.flatnonzero(np.isfinite(colours).all(axis=1))
            results = search.search([queries[n] for n in readable], colours[readable])
            found = dict(zip(readable.tolist(), results, strict=True))
            unread += len(block) - len(found)
            norms = np.linalg.norm(colours, axis=1).tolist()
            for number, query in enumerate(queries):
                outcomes.add(_outcome(snapshot, query, found.get(number), norms[number]))
    unread_rows = sum(int(np.isnan(colours).any(axis=1).sum()) for colours in stored)
    return Evaluation(
        method=METHOD,
        outcomes=outcomes.outcomes(),
        known_classes=snapshot.classes,
        settings=report_settings(snapshot, settings)
        | {"unread_rows": unread_rows, "unread_queries": unread},
    )


def _shard_colours(shard: Shard, finder: PictureFinder) -> Colours:
    colours = np.full((shard.n, 3), np.nan)
    # Rows lie in the order of their codes; slide by slide each file is opened once.
    coords = np.asarray(shard.coords)
    for local in np.lexsort((coords[:, 0], coords[:, 1], shard.source)).tolist():
        colours[local] = mean_colour(finder.of_row(shard.first_row + local))
    return colours


def _outcome(snapshot: Snapshot, query: Query, found: Found | None, norm: float) -> Outcome:
    rows = () if found is None else tuple(found.rows.tolist())
    distances = () if found is None else tuple(found.distances.tolist())
    labels = tuple(snapshot.row(row).label for row in rows)
    vote = tally(labels, distances, norm)
    return Outcome(
        query=query.name,
        label=query.label or "",
        prediction=vote.prediction,
        confidence=vote.confidence,
        weighted_confidence=vote.weighted_confidence,
        neighbours=labels,
        patient=query.patient,
        row=query.row,
        rows=rows,
        distances=distances,
        norm=None if math.isnan(norm) else norm,
    )
