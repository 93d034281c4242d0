"""An archive whose names are as hostile as names can be, asked, and its report written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.evaluation.evaluate import METHOD, Contestant, evaluate_all
from patchknn.evaluation.queries import archived_queries
from patchknn.evaluation.report.evaluation_report import Shown, evaluation_report
from patchknn.evaluation.report.page import write_report
from patchknn.evaluation.report.parts import ReportData
from patchknn.evaluation.ways import in_this_process
from patchknn.search.settings import SearchSettings

HOSTILE = (
    "<script>alert(1)</script>.svs",
    '"><img src=x onerror=alert(2)>.svs',
    'it\'s "quoted" & <b>bold</b>.svs',
    "name-" + "x" * 300 + ".svs",
    "שלום-עולם-مرحبا.svs",
    "\u202egnp.exe 🔬🧫.svs",
    "line\nend\tand\x00nul\x1b[31m.svs",
    "{{ 7 * 7 }} {% raw %} </style></script>.svs",
)
CLASSES = ("<i>TUM</i>", 'STR "x" & y', "לימפה 🧬")
MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def encoded(picture: np.ndarray) -> bytes:
    from PIL import Image

    out = BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=85)
    return out.getvalue()


def noisy(count: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures of noise, of which no two are alike, and which JPEG compresses worst."""
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """Names of sources that a page must show as text."""
    return HOSTILE


@pytest.fixture(scope="session")
def class_names() -> tuple[str, ...]:
    """The classes of the archive, as hostile."""
    return CLASSES


@pytest.fixture(scope="session")
def picture_archive(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Snapshot]:
    """Write an archive of n rows with thumbnails; rows of one class lie near each other."""

    def make(
        n: int, *, side: int = 24, names: Sequence[str] = HOSTILE, thumbnails: bool = True
    ) -> Snapshot:
        rng = np.random.default_rng(1)
        folder = tmp_path_factory.mktemp("pictures")
        maps = [
            LinearMap(rng.normal(size=(out, dim)).astype(np.float32), np.zeros(out, np.float32))
            for out, dim in ((16, 8), (len(CLASSES), 16))
        ]
        description = EncoderDescription(8, 16, "sign", class_names=CLASSES)
        write_bundle(folder / "encoder", description, *maps)
        bundle = load_bundle(folder / "encoder")
        create_archive(folder / "archive", bundle, patch_px=side, mpp=0.5)
        labels = rng.integers(0, len(CLASSES), n).astype(np.int32)
        features = rng.normal(size=(n, 8)) + 1.1 * np.eye(8)[labels]
        stored = features.astype(np.float16)
        sources = tuple(
            Source(name, f"/gone/{number}", 1, 0, bytes([number]) * 16, 0.5, f"P{number}{name[:9]}")
            for number, name in enumerate(names)
        )
        pictures = tuple(map(encoded, noisy(n, side))) if thumbnails else None
        with ArchiveWriter(folder / "archive") as writer:
            writer.add(
                Rows(
                    features=stored,
                    codes=bundle.codes(stored),
                    coords=np.stack([np.arange(n) * 10, np.arange(n)], axis=1),
                    source=(np.arange(n) % len(sources)).astype(np.int32),
                    labels=labels,
                    sources=sources,
                    classes=CLASSES,
                    thumbnails=pictures,
                )
            )
            writer.publish()
        return open_archive(folder / "archive")

    return make


@pytest.fixture(scope="session")
def reported() -> Callable[..., ReportData]:
    """Ask an archive its own rows by two settings, and put together the report of it."""

    def make(snapshot: Snapshot, *, queries: int = 30, **more: Any) -> ReportData:
        settings = SearchSettings(k=10, radius=1, max_radius=16, exclude_same="self")
        every = settings._replace(radius=16)
        contestants = [
            Contestant(METHOD, settings, in_this_process(snapshot, settings)),
            Contestant('all "of" <them>', every, in_this_process(snapshot, every)),
        ]
        sampled: list[Any] = []

        def keep(query: Any, answers: Any) -> None:
            sampled.append((query, tuple(answers)))

        evaluations = evaluate_all(
            snapshot, archived_queries(snapshot), contestants, on_answered=keep
        )
        return evaluation_report(
            snapshot,
            evaluations,
            settings,
            Shown(sampled[:queries]),
            made=MADE,
            **more,
        )

    return make


@pytest.fixture(scope="session")
def hostile_page(
    picture_archive: Callable[..., Snapshot],
    reported: Callable[..., ReportData],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The page of the archive with hostile names."""
    folder = tmp_path_factory.mktemp("report") / "report"
    return write_report(folder, reported(picture_archive(160)))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where a Chromium is that Playwright can drive: ``PATCHKNN_CHROMIUM``, or one on the PATH."""
    pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("PATCHKNN_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if found is None:
        pytest.skip("no Chromium on the PATH; name one in PATCHKNN_CHROMIUM")
    return found
