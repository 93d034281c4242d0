"""What a run is: a fingerprint of its settings and images, by which it is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchknn import bundle
from patchknn.errors import ConflictError
from patchknn.files import read_json, write_json
from patchknn.training.selection import Selection
from patchknn.training.settings import TrainingSettings

RUN_FILE = "run.json"


def run_digest(
    settings: TrainingSettings, selections: Mapping[str, Selection], precision: str
) -> str:
    """SHA-256 over all that can change the result: settings, patches, labels, splits, files.

    Files count by size and time of change.
    """
    digest = hashlib.sha256(f"{settings.digest()} {precision}".encode())
    stamps: dict[Path, str] = {}
    if settings.weights is not None:
        digest.update(_stamp(settings.weights, stamps).encode())
    if settings.from_encoder is not None:
        digest.update(bundle.load_bundle(settings.from_encoder).fingerprint.encode())
    for name, selection in selections.items():
        digest.update(repr(name).encode())
        for part in (selection.train, selection.val):
            for patch in part:
                known = (patch.id, patch.label, patch.slide_mpp, patch.row)
                line = (*known, _stamp(patch.path, stamps))
                digest.update(repr(line).encode("utf-8", "surrogateescape"))
            digest.update(b"--")
    return digest.hexdigest()


def finished_run(output: Path, digest: str) -> dict[str, Any] | None:
    """The description of the encoder in ``output`` where this very run wrote it, else None.

    Raises ConflictError where ``output`` is something else than an encoder bundle.
    """
    if not (output / bundle.DESCRIPTION_FILE).is_file():
        if output.exists():
            message = f"{output} exists and is not an encoder bundle; choose another -o."
            raise ConflictError(message)
        return None
    record = output / RUN_FILE
    if not record.is_file() or read_json(record).get("digest") != digest:
        return None
    bundle.load_bundle(output)  # damage is said rather than passed on
    return read_json(output / bundle.DESCRIPTION_FILE)


def write_run_record(output: Path, digest: str, seconds: float) -> None:
    """Note in the bundle which run wrote it, outside what its fingerprint covers.

    Times of files and of clocks would give every run another fingerprint.
    """
    write_json(output / RUN_FILE, {"digest": digest, "seconds": round(seconds, 1)})


def _stamp(path: Path, known: dict[Path, str]) -> str:
    if path not in known:
        try:
            status = path.stat()
            known[path] = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            known[path] = "absent"
    return known[path]
