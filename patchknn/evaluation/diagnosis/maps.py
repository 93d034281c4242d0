"""A map of an archive's features in two dimensions, by t-SNE (paper B, Fig. S1)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot, StoredRow
from patchknn.errors import InputError
from patchknn.files import replaced_atomically
from patchknn.search.rows import RowReader

LEAST_ROWS = 5
_DIMENSIONS = 50  # of the principal components that t-SNE sees, as its authors have it
_PERPLEXITY = 30.0

Floats = npt.NDArray[np.float64]


class Map(NamedTuple):
    """``rows`` of a snapshot with their places ``points`` (n, 2) float64, and what made these."""

    rows: tuple[StoredRow, ...]
    points: Floats
    method: str


def map_rows(snapshot: Snapshot, count: int, seed: int) -> Map:
    """The map of at most ``count`` rows, drawn evenly by class.

    openTSNE does it where it is installed, else scikit-learn. Raises InputError where there are
    fewer than five rows.
    """
    rows = sample_by_class(snapshot, count, seed)
    if len(rows) < LEAST_ROWS:
        message = f"--map: {snapshot.path} has {len(rows)} rows to draw; {LEAST_ROWS} are needed."
        raise InputError(message)
    features = np.empty((len(rows), snapshot.settings.feature_dim), np.float32)
    for shard, positions, local in RowReader(snapshot).by_shard(rows):
        features[positions] = shard.features[local]
    points, method = tsne(features, seed)
    return Map(tuple(snapshot.row(row) for row in rows.tolist()), points, method)


def sample_by_class(snapshot: Snapshot, count: int, seed: int) -> npt.NDArray[np.int64]:
    """At most ``count`` live rows, ascending: as many of each class as there can be.

    What a small class has too few of goes to the others; rows without a label are a class too.
    """
    parts, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for shard in snapshot.shards:
        live = shard.live_rows()
        parts.append(live + shard.first_row)
        labels.append(shard.labels_at(live))
    rows, label = np.concatenate(parts), np.concatenate(labels)
    names, sizes = np.unique(label, return_counts=True)
    generator = np.random.default_rng(seed)
    chosen = [np.zeros(0, np.int64)]
    left = count
    for place, number in enumerate(np.argsort(sizes, kind="stable").tolist()):
        quota = min(int(sizes[number]), left // (len(names) - place))
        own = rows[label == names[number]]
        chosen.append(generator.choice(own, quota, replace=False))
        left -= quota
    return np.sort(np.concatenate(chosen))


def tsne(features: npt.NDArray[Any], seed: int) -> tuple[Floats, str]:
    """Places (n, 2) of features (n, D), n ≥ 5, on a map, and the name of what made it.

    t-SNE (van der Maaten and Hinton 2008) of the first 50 principal components with a perplexity
    of 30 (of few rows: a third of them), begun with the first two components.
    """
    from sklearn.decomposition import PCA

    values = np.asarray(features, np.float64)
    count = min(_DIMENSIONS, *values.shape)
    if count < 2 or not np.ptp(values, axis=0).any():
        flat = np.zeros((len(values), 2))
        flat[:, 0] = values[:, 0]
        return flat, "no t-SNE: the features do not differ"
    parts = PCA(count, svd_solver="full" if count < _DIMENSIONS else "auto", random_state=seed)
    components = parts.fit_transform(values)
    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    if find_spec("openTSNE") is not None:
        import openTSNE

        made = openTSNE.TSNE(perplexity=perplexity, initialization="pca", random_state=seed)
        return np.asarray(made.fit(components), np.float64), f"openTSNE {version('openTSNE')}"
    from sklearn.manifold import TSNE

    made = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return (
        np.asarray(made.fit_transform(components), np.float64),
        f"scikit-learn {version('scikit-learn')}",
    )


def write_points(path: Path, drawn: Map, colour: str, values: Sequence[Any]) -> None:
    """Write the points as CSV: place, row in words, and the ``values`` they are coloured by."""
    added = colour if colour not in {"id", "label", "source", "patient", "x", "y"} else None
    columns = ["map_x", "map_y", "id", "label", "source", "x", "y", "patient"]
    with (
        replaced_atomically(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns if added is None else [*columns, added])
        for row, (x, y), value in zip(drawn.rows, drawn.points.tolist(), values, strict=True):
            told = [x, y, row.id, row.label, row.source, row.x, row.y, row.patient]
            writer.writerow(told if added is None else [*told, value])
