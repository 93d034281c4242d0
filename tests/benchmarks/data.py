"""Seeded codes and features to search in: the same for patchknn and for everyone else.

Three distributions of codes: *spread* (9 classes of 300 modes, every row flips each bit with a
probability of its own, 0.02 to 0.05), *collapsed* (9 classes share 40 codes, which hold 99 % of
the rows: what a trained hash layer does) and *uniform* (every bit a coin: nothing to find). Two
of features: *low-rank* (a class centre, 24 directions of falling variance in which the modes and
the rows differ, and 1 % of noise: what networks make) and *isotropic* (a class centre and noise).
Queries are made in the same way from numbers of their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CODES = ("spread", "collapsed", "uniform")
FEATURES = ("low-rank", "isotropic")
N_CLASSES = 9
MODES_PER_CLASS = 300
DIM = 512
RANK = 24
NOISE_SHARE = 0.01
BLOCK = 250_000

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class CodedRows:
    """codes (n, K/8) uint8; classes and modes (n,): what the features are made of."""

    codes: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int16]
    modes: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: npt.NDArray[np.int64]) -> CodedRows:
        """Some of them."""
        return CodedRows(self.codes[rows], self.classes[rows], self.modes[rows])


def coded_rows(kind: str, n: int, bits: int, *, part: str = "rows") -> CodedRows:
    """Draw ``n`` rows of a distribution; ``part`` "queries" draws held-out ones of the same."""
    draw = {"spread": _spread, "collapsed": _collapsed, "uniform": _uniform}[kind]
    rng = _generator(kind, bits, part)
    blocks = [draw(min(BLOCK, n - first), bits, rng) for first in range(0, n, BLOCK)]
    return CodedRows(
        np.concatenate([block.codes for block in blocks]),
        np.concatenate([block.classes for block in blocks]),
        np.concatenate([block.modes for block in blocks]),
    )


def feature_blocks(
    kind: str, rows: CodedRows, *, part: str = "rows"
) -> Iterator[npt.NDArray[np.float16]]:
    """Features of these rows, ``BLOCK`` at a time: (≤ BLOCK, 512) float16."""
    shared = _generator(kind, "directions")
    centres = shared.standard_normal((N_CLASSES, DIM)).astype(np.float32)
    basis = np.linalg.qr(shared.standard_normal((DIM, RANK)))[0].T
    # The variance of direction i falls as 1/i; a row's whole variance is 1 per element.
    scale = 1 / np.sqrt(np.arange(1, RANK + 1))
    scale *= np.sqrt(DIM * (1 - NOISE_SHARE) / np.square(scale).sum())
    directions = (basis * scale[:, None]).astype(np.float32)
    places = shared.standard_normal((N_CLASSES * MODES_PER_CLASS, RANK)).astype(np.float32)
    rng = _generator(kind, "features", part)
    for first in range(0, len(rows), BLOCK):
        chosen = slice(first, first + BLOCK)
        modes, features = rows.modes[chosen], centres[rows.classes[chosen]]
        noise = rng.standard_normal((len(modes), DIM), np.float32)
        if kind == "isotropic":
            features += noise
        else:
            # Half of the variance in these directions lies between modes, half within.
            inner = rng.standard_normal((len(modes), RANK), np.float32)
            features += (places[modes] + inner) / np.float32(np.sqrt(2)) @ directions
            features += np.float32(np.sqrt(NOISE_SHARE)) * noise
        yield features.astype(np.float16)


def features_of(kind: str, rows: CodedRows, *, part: str = "rows") -> npt.NDArray[np.float16]:
    """Features of these rows as one array (n, 512) float16."""
    return np.concatenate(list(feature_blocks(kind, rows, part=part)))


def _spread(n: int, bits: int, rng: np.random.Generator) -> CodedRows:
    centres = _generator("spread", bits, "modes").random((N_CLASSES * MODES_PER_CLASS, bits)) < 0.5
    modes = rng.integers(0, len(centres), n, dtype=np.int32)
    rates = rng.uniform(0.02, 0.05, (n, 1)).astype(np.float32)
    flips = rng.random((n, bits), np.float32) < rates
    codes = np.packbits(centres[modes] ^ flips, axis=1)
    return CodedRows(codes, (modes // MODES_PER_CLASS).astype(np.int16), modes)


def _collapsed(n: int, bits: int, rng: np.random.Generator) -> CodedRows:
    """A class is one code with half of its rows, and three or four codes one bit away."""
    shared = _generator("collapsed", bits, "codes")
    centres = shared.random((N_CLASSES, bits)) < 0.5
    shares = shared.uniform(0.7, 1.3, N_CLASSES)
    classes = rng.choice(N_CLASSES, n, p=shares / shares.sum()).astype(np.int16)
    beside = np.zeros((N_CLASSES, 5, bits), bool)
    for number in range(N_CLASSES):
        for neighbour, bit in enumerate(shared.permutation(bits)[:4]):
            beside[number, 1 + neighbour, bit] = True
    four = np.array([0.5, 0.2, 0.15, 0.1, 0.05]).cumsum()
    chosen = np.searchsorted(four, rng.random(n) * four[-1], side="right").clip(0, 4)
    # Five classes of four codes, four of five: 40 in all.
    chosen[(classes < 5) & (chosen == 4)] = 0
    values = centres[classes] ^ beside[classes, chosen]
    stray = np.flatnonzero(rng.random(n) < 0.01)
    values[stray] ^= rng.random((len(stray), bits)) < rng.uniform(0.02, 0.3, (len(stray), 1))
    modes = classes.astype(np.int32) * MODES_PER_CLASS + rng.integers(
        0, MODES_PER_CLASS, n, dtype=np.int32
    )
    return CodedRows(np.packbits(values, axis=1), classes, modes)


def _uniform(n: int, bits: int, rng: np.random.Generator) -> CodedRows:
    codes = rng.integers(0, 256, (n, bits // 8), dtype=np.uint8)
    modes = rng.integers(0, N_CLASSES * MODES_PER_CLASS, n, dtype=np.int32)
    return CodedRows(codes, (modes // MODES_PER_CLASS).astype(np.int16), modes)


def _generator(*words: object) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(str(word).encode()) for word in words])
