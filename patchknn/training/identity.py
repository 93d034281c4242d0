"""What a run is: a fingerprint of its settings and images, by which it is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from patchknn import bundle
from patchknn.bundle_files import DESCRIPTION_FILE
from patchknn.errors import ConflictError
from patchknn.files import quickhash, read_json, write_json
from patchknn.training.selection import Selection
from patchknn.training.settings import TrainingSettings

RUN_FILE = "run.json"
_THREADS = 16  # network file systems answer several questions at once


def run_digest(
    settings: TrainingSettings, selections: Mapping[str, Selection], precision: str
) -> str:
    """SHA-256 over all that can change the result: settings, patches, labels, splits, files.

    Files count by their ``quickhash``, not by time or place: a job that copies its data to the
    node's own disk, and is requeued, does so on every start.
    """
    digest = hashlib.sha256(f"{settings.digest()} {precision}".encode())
    if settings.weights is not None:
        digest.update(_stamp(settings.weights))
    if settings.from_encoder is not None:
        digest.update(bundle.load_bundle(settings.from_encoder).fingerprint.encode())
    stamps = _stamps(
        patch.path
        for selection in selections.values()
        for part in (selection.train, selection.val)
        for patch in part
    )
    for name, selection in selections.items():
        digest.update(repr(name).encode())
        for part in (selection.train, selection.val):
            for patch in part:
                known = (patch.id, patch.label, patch.slide_mpp, patch.row)
                line = (*known, stamps[patch.path])
                digest.update(repr(line).encode("utf-8", "surrogateescape"))
            digest.update(b"--")
    return digest.hexdigest()


def finished_run(output: Path, digest: str) -> dict[str, Any] | None:
    """The description of the encoder in ``output`` where this very run wrote it, else None.

    Raises ConflictError where ``output`` is something else than an encoder bundle.
    """
    if not wrote(output, digest, DESCRIPTION_FILE, "an encoder bundle"):
        return None
    bundle.load_bundle(output)  # damage is said rather than passed on
    return read_json(output / DESCRIPTION_FILE)


def wrote(output: Path, digest: str, description_file: str, kind: str) -> bool:
    """Whether this very run wrote the directory ``output``, which has a ``description_file``.

    Raises ConflictError where ``output`` exists without such a file.
    """
    if not (output / description_file).is_file():
        if output.exists():
            message = f"{output} exists and is not {kind}; choose another -o."
            raise ConflictError(message)
        return False
    record = output / RUN_FILE
    return record.is_file() and read_json(record).get("digest") == digest


def write_run_record(output: Path, digest: str, seconds: float) -> None:
    """Note in the bundle which run wrote it, outside what its fingerprint covers.

    Times of files and of clocks would give every run another fingerprint.
    """
    write_json(output / RUN_FILE, {"digest": digest, "seconds": round(seconds, 1)})


def _stamps(paths: Iterable[Path]) -> dict[Path, bytes]:
    files = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(files, pool.map(_stamp, files), strict=True))


def _stamp(path: Path) -> bytes:
    try:
        return quickhash(path)
    except OSError:
        return b"absent"
