"""``patchknn archive info``: shown at once, so without NumPy, and a plain line without typer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from patchknn.cli import console
from patchknn.cli.query_plain import FORMATS, MOST_DIGITS, is_heeded

if TYPE_CHECKING:
    from patchknn.archive.calibration import Calibration
    from patchknn.archive.manifest import Manifest


class PlainInfo(NamedTuple):
    """What a plain line says."""

    archive: Path
    at: int | None
    format: str | None


def read_plain_info(arguments: Sequence[str], environment: Mapping[str, str]) -> PlainInfo | None:
    """The arguments of ``patchknn`` as a plain line, None where typer is to read them."""
    if list(arguments[:2]) != ["archive", "info"]:
        return None
    if any(is_heeded(name, "ARCHIVE_INFO") for name in environment):
        return None
    paths, at, style = [], None, None
    words = iter(arguments[2:])
    for word in words:
        if "\0" in word:
            return None
        if not word.startswith("-"):
            paths.append(word)
            continue
        value = next(words, "")
        if word == "--format" and value in FORMATS:
            style = value
        elif word == "--at" and value.isdecimal() and value.isascii() and len(value) < MOST_DIGITS:
            at = int(value)
        else:
            return None
    return PlainInfo(Path(paths[0]), at, style) if len(paths) == 1 and paths[0] else None


def show_info(archive: Path, at: int | None, style: str | None) -> int:
    """Print what an archive holds; the exit code."""
    from patchknn.archive.calibration import calibration_of
    from patchknn.archive.overview import look_at

    found = look_at(archive, at)
    settings, manifest, totals = found.settings, found.manifest, found.totals
    value = {
        "archive": str(archive),
        "archive_id": settings.archive_id,
        "snapshot": manifest.number,
        "time": manifest.time,
        "rows": manifest.rows,
        "sources": manifest.sources,
        "patients": totals.patients,
        "classes": {name: totals.classes.get(name, 0) for name in manifest.classes},
        "unlabelled": totals.unlabelled,
        "bits": settings.bits,
        "feature_dim": settings.feature_dim,
        "feature_dtype": settings.feature_dtype,
        "patch_px": settings.patch_px,
        "mpp": settings.mpp,
        "precision": settings.precision,
        "orientations": settings.orientations,
        "encoder": settings.encoder_fingerprint,
        "backbone": found.encoder.get("backbone"),
        "hash_method": found.encoder.get("hash_method"),
        "can_embed": found.can_embed,
        "shards": len(manifest.shards),
        "formats": totals.formats,
        "bytes": totals.bytes,
        "records": {table.name: table.key for table in manifest.records},
        "calibration": _calibration(calibration_of(manifest, archive), manifest),
        "indexed": found.indexed.rows,
        "segments": found.indexed.segments,
    }
    for problem in found.indexed.problems:
        console.warn(problem)
    style = console.output_format(style)
    if style == "ndjson":
        console.write_ndjson(value)
        return 0
    rows = ({"what": key, "value": _in_words(entry)} for key, entry in value.items())
    console.write_rows(rows, ("what", "value"), style)
    return 0


def _calibration(found: Calibration | None, manifest: Manifest) -> dict[str, Any] | None:
    """What it was made of, and what it is worth on patients that it had not seen."""
    if found is None:
        return None
    judged = found.held_out[found.method]
    return {
        "method": found.method,
        "stale": found.is_stale(manifest),
        "time": found.time,
        "rows": found.rows,
        "queries": found.queries,
        "patients": found.patients,
        "ece": judged.get("ece"),
        "brier": judged.get("brier"),
        "coverage": found.coverage,
        **{name: found.settings.get(name) for name in ("k", "coarse", "radius", "exclude_same")},
    }


def _in_words(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or None
    return value
