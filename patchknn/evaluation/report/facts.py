"""What was asked, as the page says it at its top."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.report.words import percent, plural, word
from patchknn.search.settings import SearchSettings

Facts = tuple[tuple[str, str], ...]
_LEFT_OUT = {
    "none": "nothing",
    "self": "the query itself",
    "slide": "the query's own slide",
    "patient": "the query's own patient",
}


def archive_facts(snapshot: Snapshot) -> Facts:
    """Which archive answered, and by which encoder."""
    description, stored = snapshot.bundle().description, snapshot.settings
    size = f"{stored.patch_px} px" + ("" if stored.mpp is None else f" at {stored.mpp:g} µm/px")
    return _known(
        ("archive", snapshot.path.name),
        ("snapshot", snapshot.number),
        ("archived patches", len(snapshot)),
        ("classes", ", ".join(snapshot.classes) or None),
        ("patches of", size),
        ("encoder", f"{description.backbone or 'features'}, {stored.bits} bits"),
        ("its fingerprint", stored.encoder_fingerprint[:12]),
    )


def search_facts(settings: SearchSettings, bits: int, *, calibrated: bool = False) -> Facts:
    """How it searched."""
    if settings.coarse == "hamming":
        widest = settings.widest_radius(bits)
        stage = (
            f"codes within {plural(settings.radius, 'bit')}, up to {widest} where these are too few"
        )
    else:
        stage = f"{settings.candidates} by hash vectors ({settings.coarse})"
    per = settings.max_per
    labels = settings.labels
    return _known(
        ("neighbours", settings.k),
        ("candidates", stage),
        ("left out", _LEFT_OUT[settings.exclude_same]),
        ("at most", None if per is None else f"{per[1]} of a {per[0]}"),
        ("labelled alone", "yes" if settings.labelled_only else None),
        ("classes searched", None if labels is None else ", ".join(sorted(labels))),
        ("records", settings.where),
        (
            "for review below",
            None
            if settings.abstain_below is None
            else f"{percent(settings.abstain_below)} {'calibrated ' * calibrated}confidence",
        ),
    )


def version_facts(made: datetime) -> Facts:
    """When, and by what."""
    import numpy as np

    from patchknn import __version__

    versions = f"patchknn {__version__}, NumPy {np.__version__}, Python"
    return (
        ("made", f"{made:%Y-%m-%d %H:%M %Z}".strip()),
        ("versions", f"{versions} {platform.python_version()}"),
    )


def _known(*facts: tuple[str, Any]) -> Facts:
    return tuple(_words(facts))


def _words(facts: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    for name, value in facts:
        if value is not None:
            yield name, word(value)
