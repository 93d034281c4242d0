"""The rows of an archive under another hash of the same features: nothing is embedded again."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from patchknn.archive.create import create_like
from patchknn.archive.paths import moved_path
from patchknn.archive.snapshot import Snapshot
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle
from patchknn.bundle_files import DESCRIPTION_FILE
from patchknn.files import read_json

# Of an encoder's description, what its features hang on.
_OF_FEATURES = (
    *("feature_dim", "backbone", "model_args", "input_size", "mean", "std", "crop"),
    *("input", "input_dim", "projection", "normalized"),
)


class Reencoded(NamedTuple):
    """Rows written, and rows that the new archive had already."""

    rows: int
    duplicates: int


def same_features(old: Bundle, new: Bundle) -> bool:
    """Whether two encoders make the same features, so that only hash and classifier differ.

    That is: the same network to the last bit, and pictures prepared alike; of imported features,
    which have no network here, the same name and width.
    """
    ours, theirs = old.description._asdict(), new.description._asdict()
    return _network(old) == _network(new) and all(
        ours[name] == theirs[name] for name in _OF_FEATURES
    )


def rehash(old: Snapshot, path: Path, bundle: Bundle, *, run_id: str | None = None) -> Reencoded:
    """Write the live rows of a snapshot, with its labels, to ``path`` with codes of ``bundle``.

    The archive is made where it is not there; what it has already is left out. Raises
    ConflictError where it is of another encoder.
    """
    create_like(path, old, bundle=bundle)
    written = 0
    with ArchiveWriter(path, run_id=run_id, store_paths=True) as writer:
        for shard in old.shards:
            rows = shard.rows()
            rows.labels, rows.classes = shard.labels.copy(), old.classes
            if shard.edits.is_any:
                rows = rows.take(shard.live_rows())
            rows.codes = bundle.codes(rows.features)
            moved = (moved_path(source.path, old.path, path) for source in rows.sources)
            pairs = zip(rows.sources, moved, strict=True)
            sources = tuple(source._replace(path=stored) for source, stored in pairs)
            written += writer.add(rows.with_sources(sources))
        duplicates = writer.duplicates
        writer.publish()
    return Reencoded(written, duplicates)


def _network(bundle: Bundle) -> str | None:
    digests = read_json(bundle.directory / DESCRIPTION_FILE).get("digests", {})
    found = digests.get("backbone")
    return None if found is None else str(found)
