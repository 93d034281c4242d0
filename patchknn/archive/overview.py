"""What an archive holds, counted by nobody: its small files say so, and NumPy is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.index.count import Indexed, count_indexed
from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import read_manifest
from patchknn.archive.sealed import damage
from patchknn.archive.settings import ENCODER, ArchiveSettings, read_settings
from patchknn.archive.totals import Totals
from patchknn.bundle_files import BACKBONE_FILE, read_description


class Overview(NamedTuple):
    """One snapshot at first sight.

    ``encoder`` is the content of ``encoder.json``; ``can_embed``: images can be embedded with the
    archive's own copy of it. The files of shards are not looked at.
    """

    settings: ArchiveSettings
    manifest: Manifest
    encoder: dict[str, Any]
    can_embed: bool
    totals: Totals
    indexed: Indexed


def look_at(path: Path, at: int | None = None) -> Overview:
    """The newest snapshot of the archive at ``path``, or number ``at``.

    Raises InputError where there is no archive or no such snapshot, DamageError where a small file
    was changed.
    """
    settings = read_settings(path)
    manifest = read_manifest(path, settings.archive_id, at)
    encoder = read_description(path / ENCODER)
    if encoder["fingerprint"] != settings.encoder_fingerprint:
        raise damage(path, f"{path / ENCODER} is not the encoder of the archive.")
    takes_images = encoder.get("input", "image") == "image"
    return Overview(
        settings,
        manifest,
        encoder,
        takes_images and (path / ENCODER / BACKBONE_FILE).is_file(),
        manifest.totals or _counted(path, at),
        count_indexed(path, settings, manifest),
    )


def _counted(path: Path, at: int | None) -> Totals:
    """Of a manifest of an earlier version, which says nothing of totals."""
    from patchknn.archive.counting import count
    from patchknn.archive.snapshot import open_archive

    return count(open_archive(path, at))
