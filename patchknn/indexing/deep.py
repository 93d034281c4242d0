"""``verify --deep``: a sample of the archive, embedded again from the images it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.encoder.inference import FeatureExtractor
from patchknn.files import quickhash, size_and_time
from patchknn.indexing.features import embed_patches

# Share of a feature vector's length. Rounding to float16 makes 2⁻¹¹ an element at most; networks
# add some 1e-6 by batch and machine, under bfloat16 some 1e-2.
TOLERANCES = {"float32": 1e-3, "bfloat16": 3e-2}


class Again(NamedTuple):
    """One patch embedded again: how far its feature lies from the stored one, as a share.

    None where its image is not there any more, has changed, or cannot be read: ``problem`` says.
    """

    id: str
    difference: float | None
    problem: str | None = None


def embed_again(
    snapshot: Snapshot,
    extractor: FeatureExtractor,
    *,
    sample: int,
    seed: int = 0,
    slides_dir: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Again]:
    """Embed ``sample`` live rows, drawn by ``seed``, again; in the order of the rows.

    Sources are looked for where they were, and below ``slides_dir`` by name or file name.
    """
    live = np.concatenate(
        [np.zeros(0, np.int64), *(s.live_rows() + s.first_row for s in snapshot.shards)]
    )
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(live, min(sample, len(live)), replace=False)).tolist()
    found: dict[str, Path | None] = {}
    patches, stored = [], []
    for row in rows:
        words = snapshot.row(row)
        shard, local = snapshot.shard_of(row)
        if words.source not in found:
            found[words.source] = _found(snapshot, words.source, slides_dir)
        path = found[words.source]
        if path is None:
            yield Again(words.id, None, "its image is not there any more, or has changed")
            continue
        kind: Literal["image", "slide"] = "image" if words.x < 0 and words.y < 0 else "slide"
        patches.append(Patch(words.source, path, kind, words.x, words.y, slide_mpp=words.mpp))
        stored.append((words.id, np.asarray(shard.features[local], np.float64)))
    settings = snapshot.settings
    results = embed_patches(patches, extractor, size=settings.patch_px, mpp=settings.mpp)
    for (identity, before), result in zip(stored, results, strict=True):
        advance(1)
        if result.feature is None:
            yield Again(identity, None, result.error)
        else:
            length = max(float(np.linalg.norm(before)), 1e-30)
            yield Again(identity, float(np.linalg.norm(result.feature - before)) / length)


def _found(snapshot: Snapshot, name: str, slides_dir: Path | None) -> Path | None:
    source = snapshot.find_source(name)
    if source is None:
        return None
    candidates = [Path(source.path)]
    if slides_dir is not None:
        candidates = [slides_dir / name, slides_dir / Path(source.path).name, *candidates]
    for path in candidates:
        try:
            if size_and_time(path)[0] == source.size and quickhash(path) == source.quickhash:
                return path
        except OSError:
            continue
    return None
