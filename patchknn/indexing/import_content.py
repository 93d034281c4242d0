"""The sources of a part: what they hold, whether they can be archived, and their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.rows import Source
from patchknn.datasets.stored import FeaturePart
from patchknn.errors import InputError
from patchknn.files import quickhash
from patchknn.indexing.import_parts import Found

Problems = dict[int, str]


class PartSources:
    """The sources of one part, numbered by their first row.

    ``source`` (n,) int32 are their numbers per row, ``coords`` (n, 2) int64. The content of a
    source is its HDF5 file (size and quickhash), or of a ``.npy`` file its own rows there: another
    slide in the same file does not change it.
    """

    def __init__(self, found: Found) -> None:
        self.part: FeaturePart = found.part
        self._mpp = found.figures.level0_mpp
        kept = found.figures.kept
        self._attributes = json.dumps(kept, sort_keys=True) if kept else ""
        numbers: dict[str, int] = {}
        self.source = np.array(
            [numbers.setdefault(name, len(numbers)) for name in self.part.sources], np.int32
        )
        self.names = tuple(numbers)
        self._first = np.unique(self.source, return_index=True)[1]
        self.coords = self.part.coords.astype(np.int64)

    def misplaced(self) -> Problems:
        """By number of source, why its positions cannot be archived."""
        problems: Problems = {}
        path = self.part.origin.path
        counts = np.bincount(self.source, minlength=len(self.names))
        negative = (self.coords < 0).any(axis=1)
        nowhere = (self.coords == -1).all(axis=1)
        for row in np.flatnonzero(negative & ~nowhere).tolist():
            x, y = self.coords[row].tolist()
            text = f"{path}: row {row} lies outside its slide, at {x}, {y}."
            problems.setdefault(int(self.source[row]), text)
        for number in np.unique(self.source[nowhere]).tolist():
            if counts[number] > 1:
                name = self.names[number]
                text = f"{path} gives {counts[number]} patches of {name} and not where they lie."
                problems.setdefault(number, text)
        order = np.lexsort((self.coords[:, 1], self.coords[:, 0], self.source))
        ids = np.column_stack([self.source, self.coords])[order]
        for place in np.flatnonzero((ids[1:] == ids[:-1]).all(axis=1)).tolist():
            number, x, y = ids[place].tolist()
            text = f"{path} holds two patches of {self.names[number]} at {x}, {y}."
            problems.setdefault(number, text)
        return problems

    def by_file(self) -> list[Source] | None:
        """The sources where the file as a whole is their content; None where it is not."""
        if self.part.origin.kind == "npy":
            return None
        path = self.part.origin.path
        status = path.stat()
        content = (status.st_size, status.st_mtime_ns, quickhash(path))
        return [self._source(number, content) for number in range(len(self.names))]

    def by_rows(self, digests: list[bytes]) -> list[Source]:
        """The sources where each has its own rows as content, with the digests of ``look``."""
        mtime = self.part.origin.path.stat().st_mtime_ns
        counts = np.bincount(self.source, minlength=len(self.names))
        size = self.part.dim * self.part.dtype.itemsize
        return [
            self._source(number, (int(counts[number]) * size, mtime, digest))
            for number, digest in enumerate(digests)
        ]

    def look(self, feature_dtype: str, *, may_round: bool) -> tuple[Problems, list[bytes]]:
        """Read all features once: what cannot be archived, and a digest (16 bytes) per source.

        Raises InputError where the file is damaged, or holds float64 that nobody said to round.
        """
        problems: Problems = {}
        digests = [hashlib.blake2b(digest_size=16) for _ in self.names]
        path = self.part.origin.path
        for start, block in self.blocks():
            source = self.source[start : start + len(block)]
            if block.dtype.itemsize > np.dtype(np.float32).itemsize and not may_round:
                message = (
                    f"{path} holds features of {block.dtype}, and archives at most float32: say "
                    "--feature-dtype float32 to round them."
                )
                raise InputError(message)
            with np.errstate(over="ignore", invalid="ignore"):
                finite = np.isfinite(block.astype(feature_dtype, copy=False)).all(axis=1)
            for row in np.flatnonzero(~finite).tolist():
                text = (
                    f"{path}: the features of row {start + row} hold a NaN or what is infinite as "
                    f"{feature_dtype}; make them again, in float32 or bfloat16."
                )
                problems.setdefault(int(source[row]), text)
            if self.part.origin.kind == "npy":
                self._digest(digests, start, block, source)
        return problems, [digest.digest() for digest in digests]

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(number of the first row, features (m, D)), in the order of the part."""
        start = 0
        for block in self.part.blocks():
            yield start, block
            start += len(block)

    def _digest(
        self,
        digests: list[Any],
        start: int,
        block: npt.NDArray[Any],
        source: npt.NDArray[np.int32],
    ) -> None:
        coords = self.coords[start : start + len(block)].astype("<i8")
        values = block.astype(block.dtype.newbyteorder("<"), copy=False)
        changes = np.flatnonzero(source[1:] != source[:-1]) + 1
        bounds = [0, *changes.tolist(), len(block)]
        for first, after in pairwise(bounds):
            digest = digests[int(source[first])]
            for row in range(first, after):  # so that it does not hang on where blocks end
                digest.update(coords[row].tobytes())
                digest.update(values[row].tobytes())

    def _source(self, number: int, content: tuple[int, int, bytes]) -> Source:
        name = self.names[number]
        first = int(self._first[number])
        said = self.part.origin.attributes.get("slide")
        path = self.part.paths.get(name, said if isinstance(said, str) else name)
        return Source(
            name=name,
            path=str(path),
            size=content[0],
            mtime_ns=content[1],
            quickhash=content[2],
            mpp=self._mpp,
            patient=self.part.patients[first],
            attributes=self._attributes,
        )
