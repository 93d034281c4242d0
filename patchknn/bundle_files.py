"""The files of an encoder bundle and its description as it lies on disk; without NumPy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchknn.errors import DamageError, InputError
from patchknn.files import read_json

# 2: what goes in may be a part of a plain image or stored features, a projection may stand behind
# the backbone, and features may be of unit length. What needs none of it is written as version 1,
# which older readers take.
FORMAT_VERSION = 2
DESCRIPTION_FILE = "encoder.json"
HEADS_FILE = "heads.safetensors"
BACKBONE_FILE = "backbone.safetensors"


def read_description(directory: Path) -> dict[str, Any]:
    """The content of ``encoder.json``, compared with its fingerprint; heads are not looked at.

    Raises InputError where it is no bundle or of a newer format, DamageError where it was changed.
    """
    file = directory / DESCRIPTION_FILE
    if not file.is_file():
        message = f"{directory} is not an encoder bundle: it has no {DESCRIPTION_FILE}."
        raise InputError(message)
    content = read_json(file)
    version = content.get("format_version")
    if content.get("format") != "patchknn-encoder" or not isinstance(version, int):
        message = f"{file} does not describe a patchknn encoder."
        raise InputError(message)
    if version > FORMAT_VERSION:
        message = (
            f"{file} is of format {version}; this patchknn reads formats up to {FORMAT_VERSION}: "
            "update it."
        )
        raise InputError(message)
    is_whole = content.get("fingerprint") == fingerprint_of(content)
    if not is_whole or not isinstance(content.get("digests"), dict):
        raise damaged(directory)
    return content


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical text of a description without its ``fingerprint``."""
    rest = {name: value for name, value in content.items() if name != "fingerprint"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def damaged(directory: Path) -> DamageError:
    """The error for a bundle whose content is not what its fingerprint says."""
    message = f"{directory} is damaged: its content does not match its fingerprint; restore it."
    return DamageError(message)
