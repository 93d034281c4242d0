"""The mosaics of many slides as plain arrays, one slide after the other, by name.

The mosaic of a slide is the few patches that stand for all of them; ``wholeslide`` chooses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.strings import OptionalStringTable, StringTable, pack_strings

Int64 = npt.NDArray[np.int64]


class Mosaic(NamedTuple):
    """The m patches that stand for a slide of ``patches``, and what is known of it.

    ``features`` (m, D) as the archive stores them, ``codes`` (m, K/8) uint8, ``coords`` (m, 2)
    int64 level-0. ``content`` is the quickhash of the slide's file, empty where that is unknown.
    """

    name: str
    patient: str | None
    content: bytes
    patches: int
    features: npt.NDArray[Any]
    codes: npt.NDArray[np.uint8]
    coords: Int64
    fingerprint: bytes = b""

    @property
    def size(self) -> int:
        """m; ``len`` is that of a tuple."""
        return len(self.codes)


class Mosaics(NamedTuple):
    """S slides by name; slide s has the entries starts[s] to starts[s + 1] of the M in all.

    ``patches`` (S,) int64, ``starts`` (S + 1,) int64, ``contents`` (S, 16) and ``fingerprints``
    (S, 32) uint8, ``features`` (M, D), ``codes`` (M, K/8) uint8, ``coords`` (M, 2) int64.
    """

    names: StringTable
    patients: OptionalStringTable
    patches: Int64
    starts: Int64
    contents: npt.NDArray[np.uint8]
    fingerprints: npt.NDArray[np.uint8]
    features: npt.NDArray[Any]
    codes: npt.NDArray[np.uint8]
    coords: Int64

    @property
    def n_slides(self) -> int:
        """S."""
        return len(self.patches)

    def entries(self, slide: int) -> slice:
        """Where the patches of a slide are."""
        return slice(int(self.starts[slide]), int(self.starts[slide + 1]))

    def mosaic(self, slide: int) -> Mosaic:
        """One slide alone."""
        own = self.entries(slide)
        return Mosaic(
            name=self.names[slide],
            patient=self.patients[slide],
            content=self.contents[slide].tobytes(),
            patches=int(self.patches[slide]),
            features=self.features[own],
            codes=self.codes[own],
            coords=self.coords[own],
            fingerprint=self.fingerprints[slide].tobytes(),
        )


def mosaics_of(mosaics: Sequence[Mosaic], stored: ArchiveSettings) -> Mosaics:
    """Mosaics in memory; ``stored`` says of what shape and type their arrays are."""
    sizes = [mosaic.size for mosaic in mosaics]
    no_features = np.zeros((0, stored.feature_dim), stored.feature_dtype)
    no_codes = np.zeros((0, stored.bits // 8), np.uint8)
    no_coords = np.zeros((0, 2), np.int64)
    return Mosaics(
        names=StringTable(*pack_strings(mosaic.name for mosaic in mosaics)),
        patients=OptionalStringTable(
            StringTable(*pack_strings(mosaic.patient for mosaic in mosaics))
        ),
        patches=np.array([mosaic.patches for mosaic in mosaics], np.int64),
        starts=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        contents=_bytes([mosaic.content for mosaic in mosaics], 16),
        fingerprints=_bytes([mosaic.fingerprint for mosaic in mosaics], 32),
        features=np.concatenate([no_features, *(mosaic.features for mosaic in mosaics)]),
        codes=np.concatenate([no_codes, *(mosaic.codes for mosaic in mosaics)]),
        coords=np.concatenate([no_coords, *(mosaic.coords for mosaic in mosaics)]),
    )


def _bytes(values: Sequence[bytes], width: int) -> npt.NDArray[np.uint8]:
    joined = b"".join(value.ljust(width, b"\0") for value in values)
    return np.frombuffer(joined, np.uint8).reshape(-1, width)
