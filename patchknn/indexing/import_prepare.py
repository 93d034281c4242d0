"""Before an import: the archive it goes into is made, or what is there is looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from patchknn.archive.create import create_archive
from patchknn.archive.settings import SETTINGS_FILE
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.bundle import Bundle
from patchknn.datasets.patches import Problem
from patchknn.errors import ConflictError, InputError, PatchknnError
from patchknn.files import temporary_beside
from patchknn.hamming.itq import MAX_ROWS
from patchknn.indexing.import_encoder import check_bundle, draw, make_bundle
from patchknn.indexing.import_fit import (
    Asked,
    Fit,
    Head,
    common_attributes,
    fit_of_archive,
    fit_of_files,
    head_of,
    misfit,
)
from patchknn.indexing.import_parts import Reading, iter_parts

BITS = 48


@dataclass(frozen=True)
class ImportSettings:
    """How features are imported.

    ``bits``, ``sample`` (rows that codes are fitted on), ``seed`` and ``bundle`` matter where the
    archive is made. What is complete is published every ``publish_seconds``.
    """

    reading: Reading
    asked: Asked
    bits: int | None = None
    sample: int = MAX_ROWS
    seed: int = 0
    bundle: Bundle | None = None
    shard_format: str = "zarr"
    publish_seconds: float = 300.0


def prepare_import(archive: Path, settings: ImportSettings, *, dry_run: bool = False) -> Fit:
    """Make the archive if there is none, with codes fitted on a sample; what it takes.

    Any number of processes may do so at once with the same files. Raises InputError where no file
    can be used, ConflictError where an archive is there that was made by another encoder, or in
    another way, than was asked for. A ``dry_run`` makes nothing.
    """
    if (archive / SETTINGS_FILE).is_file():
        return _fit_of_existing(open_archive(archive), settings)
    heads, first = _heads(settings.reading)
    if not heads:
        reason = f": {first.error}" if first is not None else "."
        message = f"There are no features to import{reason}"
        raise InputError(message)
    fit = fit_of_files(archive, heads, settings.asked)
    if settings.bundle is not None:
        check_bundle(settings.bundle, fit)
        _create(archive, settings.bundle, fit, dry_run=dry_run)
        return fit
    if dry_run:
        return fit
    sample = draw(_blocks(settings, fit), settings.sample, settings.seed)
    temporary = temporary_beside(archive)
    try:
        bundle = make_bundle(
            temporary,
            sample,
            fit,
            bits=settings.bits or BITS,
            seed=settings.seed,
            attributes=common_attributes(heads, fit),
        )
        _create(archive, bundle, fit, dry_run=False)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return fit


def _fit_of_existing(snapshot: Snapshot, settings: ImportSettings) -> Fit:
    fit, there = fit_of_archive(snapshot), snapshot.settings
    asked = settings.asked
    wanted = {
        "bits": settings.bits,
        "feature_dtype": asked.feature_dtype,
        "patch_px": asked.patch_px,
        "mpp": asked.mpp,
    }
    different = [
        f"{name} {getattr(there, name)} (asked for: {value})"
        for name, value in wanted.items()
        if value is not None and value != getattr(there, name)
    ]
    if different:
        message = f"{snapshot.path} was made with other settings: {', '.join(different)}."
        raise ConflictError(message)
    if settings.bundle is not None:
        check_bundle(settings.bundle, fit)
        _create(snapshot.path, settings.bundle, fit, dry_run=True)  # which only compares
    return fit


def _create(archive: Path, bundle: Bundle, fit: Fit, *, dry_run: bool) -> None:
    create_archive(
        archive,
        bundle,
        feature_dtype=fit.feature_dtype,
        patch_px=fit.patch_px,
        mpp=fit.mpp,
        precision=bundle.description.precision,
        dry_run=dry_run,
    )


def _heads(reading: Reading) -> tuple[list[Head], Problem | None]:
    """What files with rows say of themselves, and the first that cannot be used."""
    problems: list[Problem] = []
    parts = iter_parts(reading, problems.append, lambda _: None)
    heads = [head_of(found) for found in parts if len(found.part)]
    return heads, problems[0] if problems else None


def _blocks(settings: ImportSettings, fit: Fit) -> Iterator[npt.NDArray[Any]]:
    """The features (m, D) of every file that fits, as far as they can be read."""
    for found in iter_parts(settings.reading, lambda _: None, lambda _: None):
        if len(found.part) and misfit(head_of(found), fit, settings.asked) is None:
            try:
                yield from found.part.blocks()
            except PatchknnError:  # told when the file itself is imported
                continue
