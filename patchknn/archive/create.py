"""Making an archive that holds no rows yet, or checking that one fits what is to be added."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from patchknn.archive.description import SHARDS
from patchknn.archive.manifests import MANIFESTS, first_manifest, manifest_file
from patchknn.archive.runs import RUNS
from patchknn.archive.sealed import sealed_text
from patchknn.archive.settings import (
    ENCODER,
    FEATURE_DTYPES,
    SETTINGS_FILE,
    ArchiveSettings,
    read_settings,
)
from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle, copy_bundle
from patchknn.errors import ConflictError, UsageError
from patchknn.files import errors_named, fsync_directory, temporary_beside, write_bytes

__all__ = ["ArchiveSettings", "create_archive"]


def create_archive(
    path: Path,
    bundle: Bundle,
    *,
    feature_dtype: str = "float16",
    patch_px: int,
    mpp: float | None,
    precision: str = "float32",
    orientations: int = 1,
    with_backbone: bool = True,
    dry_run: bool = False,
) -> None:
    """Create an archive for rows of this encoder, or check that the one there takes them.

    Any number of processes may do so at once: one creates it, the others check. ``patch_px`` in
    pixels, ``mpp`` in µm/px. A ``dry_run`` checks only. Raises ConflictError where another
    encoder (both fingerprints are named), another setting, or something that is no archive is
    there.
    """
    if feature_dtype not in FEATURE_DTYPES:
        message = f"features are stored as {' or '.join(FEATURE_DTYPES)}, not {feature_dtype}."
        raise UsageError(message)
    wanted = ArchiveSettings(
        archive_id=secrets.token_hex(16),
        encoder_fingerprint=bundle.fingerprint,
        bits=bundle.description.bits,
        feature_dim=bundle.description.feature_dim,
        feature_dtype=feature_dtype,
        patch_px=patch_px,
        mpp=mpp,
        precision=precision,
        orientations=orientations,
    )
    # In this order: what another process has just made is complete, and an archive.
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if (path / SETTINGS_FILE).is_file():
        _check_fits(path, wanted)
        return
    if occupied:
        message = f"{path} exists and is not an archive; choose another --archive."
        raise ConflictError(message)
    if not dry_run:
        _create(path, wanted, bundle, with_backbone=with_backbone)


def create_like(
    path: Path, other: Snapshot, *, bundle: Bundle | None = None, with_backbone: bool = True
) -> None:
    """``create_archive`` with the settings of another one, and its encoder or another."""
    settings = other.settings
    create_archive(
        path,
        bundle or other.bundle(),
        feature_dtype=settings.feature_dtype,
        patch_px=settings.patch_px,
        mpp=settings.mpp,
        precision=settings.precision,
        orientations=settings.orientations,
        with_backbone=with_backbone,
    )


def _create(path: Path, settings: ArchiveSettings, bundle: Bundle, *, with_backbone: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with errors_named(path, temporary):
            _fill(temporary, settings, bundle, with_backbone=with_backbone)
            try:
                # Only an empty directory gives way to a rename: of many creators one wins.
                temporary.rename(path)
            except OSError:
                if not (path / SETTINGS_FILE).is_file():
                    raise
                _check_fits(path, settings)
            fsync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, settings: ArchiveSettings, bundle: Bundle, *, with_backbone: bool) -> None:
    for name in (SHARDS, MANIFESTS, RUNS):
        (folder / name).mkdir(parents=True)
    copy_bundle(bundle, folder / ENCODER, backbone=with_backbone)
    write_bytes(manifest_file(folder, 0), sealed_text(first_manifest(settings.archive_id)))
    write_bytes(folder / SETTINGS_FILE, sealed_text(settings.as_json()))
    fsync_directory(folder)


def _check_fits(path: Path, wanted: ArchiveSettings) -> None:
    present = read_settings(path)
    if present.encoder_fingerprint != wanted.encoder_fingerprint:
        message = (
            f"{path} holds rows of the encoder {present.encoder_fingerprint[:16]}, and this is "
            f"{wanted.encoder_fingerprint[:16]}: use its own, {path / ENCODER}, or another archive."
        )
        raise ConflictError(message)
    there, asked = present._asdict(), wanted._asdict()
    different = [
        f"{name} {there[name]} (asked for: {asked[name]})"
        for name in there
        if name != "archive_id" and there[name] != asked[name]
    ]
    if different:
        message = f"{path} was made with other settings: {', '.join(different)}."
        raise ConflictError(message)
