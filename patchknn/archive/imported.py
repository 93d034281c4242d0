"""What an import noted of the files that its features came from, in the encoder's description.

An archive has one figure for all patches (side, µm/px) and one µm/px a source. Whatever else the
files of the first import agree on lies in the bundle, and what each file said with its source, so
that an export can give it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from patchknn.archive.rows import Source
from patchknn.bundle_description import EncoderDescription

IMPORTED = "imported"


def noted_encoder(description: EncoderDescription) -> str | None:
    """What made the features: as the imported files said, or the bundle's own backbone."""
    noted = _noted(description)
    name = noted.get("encoder") if noted else description.backbone
    return None if name is None else str(name)


def noted_attributes(description: EncoderDescription) -> dict[str, Any]:
    """The attributes that all files of the first import had in common, under their own names."""
    attributes = _noted(description).get("attributes", {})
    return dict(attributes) if isinstance(attributes, Mapping) else {}


def own_attributes(source: Source) -> dict[str, Any]:
    """The attributes of the file that a source was imported from; nothing where it was none."""
    try:
        attributes = json.loads(source.attributes or "{}")
    except ValueError:
        return {}
    return attributes if isinstance(attributes, dict) else {}


def _noted(description: EncoderDescription) -> Mapping[str, Any]:
    noted = description.training.get(IMPORTED, {})
    return noted if isinstance(noted, Mapping) else {}
