"""A slide that is to become a grid, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchknn.datasets.entries import Entry
from patchknn.datasets.tiles import PatchSettings
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.remote import RemoteEncoder


@dataclass(frozen=True)
class CompressSettings:
    """How slides become grids; ``feature_dim`` is the encoder's D.

    ``encoder`` gives one vector of a patch, or ``apart`` those of its eight orientations.
    """

    patches: PatchSettings
    reading: ReadSettings
    encoder: RemoteEncoder
    feature_dim: int
    batch_size: int = 64


@dataclass(frozen=True)
class GridUnit:
    """A slide or tile set, where its grid goes, and how; ``clash`` says why it must not."""

    entry: Entry
    output: Path
    settings: CompressSettings
    clash: str | None = None
