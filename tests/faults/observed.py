"""Everything that a reader learns from an archive, part by part: the same, other, or an error."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from patchknn.archive.history import history, label_history
from patchknn.archive.listing import list_rows
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.verify import verify_archive
from patchknn.errors import PatchknnError
from patchknn.search.engine import Searcher
from patchknn.search.query import Query, stored_queries
from patchknn.search.settings import SearchSettings

# What only tells of an archive, and may tell otherwise where a run's record was lost.
INFORMAL = frozenset({"log"})
_SETTINGS = (
    SearchSettings(k=5, radius=2),
    SearchSettings(k=8, radius=1, exclude_same="slide", max_per=("slide", 2)),
)


def observe(path: Path, older: int | None = None) -> dict[str, Any]:
    """By part what was learnt, as a short text, or the error that it came to.

    Of an error its name and text, and where it was raised unless it is one of patchknn's own.
    """
    parts: dict[str, Callable[[], Any]] = {
        "list": lambda: _listing(open_archive(path)),
        "info": lambda: _info(open_archive(path)),
        "search": lambda: _answers(open_archive(path)),
        "ids": lambda: _stored(open_archive(path)),
        "where": lambda: _chosen(open_archive(path)),
        "labels": lambda: [str(event) for event in label_history(path)],
        "log": lambda: [str(entry) for entry in history(path)],
    }
    if older is not None:
        parts["list older"] = lambda: _listing(open_archive(path, older))
        parts["search older"] = lambda: _answers(open_archive(path, older))
    return {name: _learnt(part, path) for name, part in parts.items()}


def examine(path: Path) -> Any:
    """What verify names, or the error that it raised."""

    def findings() -> Any:
        return [[finding.file, finding.sentence] for finding in verify_archive(path)]

    return _caught(findings)


def is_error(value: Any) -> bool:
    """Whether a part, or ``examine``, came to an error."""
    return isinstance(value, dict)


def is_refusal(value: dict[str, str]) -> bool:
    """Whether an error is one of patchknn's own, which say one sentence."""
    return not value["where"]


def _learnt(part: Callable[[], Any], path: Path) -> Any:
    found = _caught(part)
    if is_error(found):
        return found
    text = json.dumps(found).replace(str(path), "ARCHIVE")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _caught(part: Callable[[], Any]) -> Any:
    try:
        return part()
    except PatchknnError as error:
        return {"error": type(error).__name__, "text": str(error), "where": ""}
    except Exception as error:  # noqa: BLE001  whatever it is, it is looked at
        where = traceback.format_exc()[-1500:]
        return {"error": type(error).__name__, "text": str(error), "where": where}


def _listing(snapshot: Snapshot) -> Any:
    return [[*row[:7], row.code.hex(), row.path, row.mpp] for row in list_rows(snapshot)]


def _info(snapshot: Snapshot) -> Any:
    sources = sorted(str(source) for source in snapshot.sources())
    return [list(snapshot.classes), len(snapshot), snapshot.n_sources, sources]


def _answers(snapshot: Snapshot) -> Any:
    dim = snapshot.settings.feature_dim
    generator = np.random.default_rng(5)
    plane = np.random.default_rng(0).normal(size=(6, dim))
    queries = [
        Query(f"q{n}", generator.normal(size=6) @ plane, patient="P1", source="no such")
        for n in range(6)
    ]
    found = []
    for settings in _SETTINGS:
        searcher = Searcher(snapshot, settings, 2)
        found += [_in_words(answer) for answer in searcher.search_many(queries)]
        found.append(_in_words(searcher.search(queries[0])))
    return found


def _chosen(snapshot: Snapshot) -> Any:
    """What attached tables choose."""
    query = Query("q", np.ones(snapshot.settings.feature_dim))
    settings = SearchSettings(k=5, radius=3, where="grade > 1 and stage < 3")
    return _in_words(Searcher(snapshot, settings).search(query))


def _stored(snapshot: Snapshot) -> Any:
    ids = ["s1.svs@224_1", "s3.svs@0_3", "s6.svs@0_6", "ü 3.svs@448_2", "bare.svs@0_0", "none"]
    ids += ["s4.svs@0_4", "t1.svs@0_0", "s25.svs@22176_25"]
    queries = stored_queries(snapshot, ids)
    searcher = Searcher(snapshot, SearchSettings(k=3, radius=4))
    rows = [snapshot.locate(identity) for identity in ids]
    places = [(name, number) for name, _, number in snapshot.sources_of_patients(["P1", "P2"])]
    return [
        rows,
        [str(snapshot.row(row)) for row in rows if row is not None],
        [_in_words(answer) for answer in searcher.search_many(queries)],
        sorted(str(snapshot.find_source(name)) for name in ("s1.svs", "t2.svs", "none")),
        len(places),
    ]


def _in_words(answer: Any) -> str:
    return str(answer._replace(explain=None)) if hasattr(answer, "explain") else str(answer)
