"""What an archive knows of its own confidence: an object in its manifest, made by ``calibrate``."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import publish
from patchknn.archive.sealed import damage
from patchknn.archive.settings import read_settings
from patchknn.errors import InputError

VERSION = 1
TEMPERATURE, ISOTONIC = "temperature", "isotonic"


class ConfidenceMap(NamedTuple):
    """What makes of a vote the probability that its prediction is right.

    Method ``temperature`` has a ``temperature`` for the class probabilities, ``isotonic`` has
    ``knots``, pairs of weighted and calibrated confidence, both rising.
    """

    method: str
    temperature: float | None = None
    knots: tuple[tuple[float, float], ...] = ()


class Calibration(NamedTuple):
    """How the confidence of answers is set right, and how far off a query may lie.

    ``settings`` are those of the search that it was made of: it holds for no other. ``queries`` of
    ``patients`` were judged, the archive's own rows left out one by one where ``own``; ``rows``
    and ``fingerprint`` (``rows_fingerprint``) are of the archive at that time.

    ``method``, ``temperature`` and ``knots`` are a ConfidenceMap, ``priors`` the shares of the
    archive's classes among its labelled rows.

    A prediction set holds the classes whose probability is at least 1 − ``threshold``, for a
    share ``coverage`` of them to hold the true one; without a ``threshold`` it holds all.
    ``nearest_limit`` is the distance of the nearest neighbour, relative to the length of the
    query's features, that one in a hundred of the archive's own rows exceeds, None where that is
    infinite; ``short`` is the share of them with fewer than k neighbours. ``own_distances`` and
    ``held_out`` are figures for people.
    """

    time: str
    own: bool
    settings: dict[str, Any]
    rows: int
    fingerprint: str
    queries: int
    patients: int
    method: str
    temperature: float | None
    knots: tuple[tuple[float, float], ...]
    priors: dict[str, float]
    coverage: float
    threshold: float | None
    nearest_limit: float | None
    short: float
    own_distances: dict[str, Any]
    held_out: dict[str, Any]

    @property
    def mapping(self) -> ConfidenceMap:
        """What is done to confidences."""
        return ConfidenceMap(self.method, self.temperature, self.knots)

    def as_json(self) -> dict[str, Any]:
        """The object in a manifest."""
        return {"version": VERSION, **self._asdict(), "knots": [list(pair) for pair in self.knots]}

    def is_stale(self, manifest: Manifest) -> bool:
        """Whether rows or labels changed since."""
        return self.fingerprint != rows_fingerprint(manifest)


def calibration_of(manifest: Manifest, path: Path) -> Calibration | None:
    """The calibration that a manifest of the archive at ``path`` keeps, None where it has none.

    Raises DamageError where it holds what cannot be, InputError where it is of a newer version.
    """
    value = manifest.calibration
    if value is None:
        return None
    version = value.get("version")
    if type(version) is int and version > VERSION:
        message = (
            f"{path} was calibrated by a newer patchknn: update this one, or run 'patchknn archive "
            f"calibrate {path}' again."
        )
        raise InputError(message)
    try:
        content = {name: value[name] for name in Calibration._fields}
        content["knots"] = tuple((float(x), float(y)) for x, y in content["knots"])
        calibration = Calibration(**content)
        plausible = version == VERSION and _plausible(calibration)
    except (KeyError, TypeError, ValueError, AttributeError):
        plausible = False
    if not plausible:
        raise damage(path, f"The calibration in snapshot {manifest.number} cannot be.")
    return calibration


def rows_fingerprint(manifest: Manifest) -> str:
    """What changes with the rows and labels of an archive, and with nothing else.

    Shards and changes are immutable, so their names say what is in them. Where rows are only
    written anew ``rewritten`` keeps a calibration valid.
    """
    named = [sorted(manifest.shards.uuid), [entry.uuid for entry in manifest.changes]]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def rewritten(before: Manifest, after: Manifest) -> dict[str, Any] | None:
    """The calibration of a snapshot whose rows and labels another one holds in new shards."""
    value = before.calibration
    if value is None or value.get("fingerprint") != rows_fingerprint(before):
        return value
    return {**value, "fingerprint": rows_fingerprint(after)}


def store_calibration(
    path: Path, calibration: Calibration, *, run_id: str | None = None
) -> Manifest:
    """Publish a snapshot that has this calibration in the place of any other."""

    def with_calibration(newest: Manifest) -> Manifest:
        return newest._replace(calibration=calibration.as_json())

    archive_id = read_settings(path).archive_id
    published = publish(path, archive_id, with_calibration, action="calibrate", run_id=run_id)
    assert published is not None
    return published


def _plausible(calibration: Calibration) -> bool:
    shares = (calibration.coverage, calibration.short, *calibration.priors.values())
    perhaps = (calibration.threshold, calibration.nearest_limit)
    fits = calibration.temperature is not None and calibration.temperature > 0
    if calibration.method == ISOTONIC:
        x, y = zip(*calibration.knots, strict=True)
        fits = (
            all(a < b for a, b in pairwise(x))
            and all(a <= b for a, b in pairwise(y))
            and all(0 <= value <= 1 for value in y)
        )
    return (
        fits
        and calibration.method in (TEMPERATURE, ISOTONIC)
        and isinstance(calibration.fingerprint, str)
        and isinstance(calibration.settings, dict)
        and isinstance(calibration.held_out[calibration.method], dict)
        and isinstance(calibration.own_distances, dict)
        and all(isinstance(name, str) for name in calibration.priors)
        and all(0 <= share <= 1 for share in shares)
        and all(value is None or math.isfinite(value) for value in perhaps)
        and min(calibration.rows, calibration.queries, calibration.patients) >= 0
    )
