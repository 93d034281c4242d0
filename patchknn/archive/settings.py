"""``archive.json``: what every row of an archive has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.sealed import damage, read_sealed
from patchknn.errors import InputError

FORMAT = "patchknn-archive"
# 2: features may be means over orientations. Where they are not, what is written is version 1.
FORMAT_VERSION = 2
SETTINGS_FILE = "archive.json"
ENCODER = "encoder"
FEATURE_DTYPES = ("float16", "float32")


class ArchiveSettings(NamedTuple):
    """Identity, encoder and units of an archive.

    ``bits`` K and ``feature_dim`` D per row; ``patch_px`` the side of a patch in pixels; ``mpp``
    in µm/px, None where patches were taken at level-0 pixels; ``precision`` of the encoder's
    forward pass; ``orientations`` of a patch that its features are the mean of.
    """

    archive_id: str
    encoder_fingerprint: str
    bits: int
    feature_dim: int
    feature_dtype: str
    patch_px: int
    mpp: float | None
    precision: str
    orientations: int = 1

    def as_json(self) -> dict[str, Any]:
        """The content of ``archive.json``, not yet sealed."""
        fields = self._asdict()
        if self.orientations == 1:
            del fields["orientations"]
            return {"format": FORMAT, "format_version": 1, **fields}
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **fields}


def read_settings(path: Path) -> ArchiveSettings:
    """Read ``archive.json`` of the archive at ``path``.

    Raises InputError where there is no archive or one of a newer format, DamageError where the
    file was changed.
    """
    if not path.exists():
        message = f"{path} does not exist: 'patchknn embed' makes an archive."
        raise InputError(message)
    file = path / SETTINGS_FILE
    if not file.is_file():
        message = f"{path} is not a patchknn archive: it has no {SETTINGS_FILE}."
        raise InputError(message)
    value = read_sealed(file, path)
    version = value.get("format_version")
    if value.get("format") != FORMAT or not isinstance(version, int):
        message = f"{file} does not describe a patchknn archive."
        raise InputError(message)
    if version > FORMAT_VERSION:
        message = (
            f"{path} is an archive of format {version}; this patchknn reads formats up to "
            f"{FORMAT_VERSION}: update it."
        )
        raise InputError(message)
    settings = _from_json(value)
    if settings is None:
        raise damage(path, f"{file} lacks a setting or holds one that cannot be.")
    return settings


def _from_json(value: dict[str, Any]) -> ArchiveSettings | None:
    try:
        known = (name for name in ArchiveSettings._fields if name in value)
        settings = ArchiveSettings(**{name: value[name] for name in known})
    except TypeError:  # one is missing
        return None
    texts = (settings.archive_id, settings.encoder_fingerprint, settings.precision)
    counts = (settings.bits, settings.feature_dim, settings.patch_px, settings.orientations)
    plausible = (
        all(isinstance(text, str) for text in texts)
        and all(type(count) is int and 0 < count < 1 << 24 for count in counts)
        and settings.bits % 8 == 0
        and settings.bits <= 1024
        and settings.feature_dtype in FEATURE_DTYPES
        and (settings.mpp is None or isinstance(settings.mpp, int | float))
    )
    return settings if plausible else None
