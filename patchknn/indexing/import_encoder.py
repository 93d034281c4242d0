"""The encoder bundle of imported features: a hash map by ITQ on a sample, and no backbone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.imported import IMPORTED
from patchknn.bundle import Bundle, load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.errors import ConflictError, InputError
from patchknn.hamming.itq import fit_itq
from patchknn.indexing.import_fit import Fit

_SCALED_ON = 4096


class Sample:
    """Rows (``size``, D) drawn from a stream of any length, each with the same chance.

    Every row gets a random key, and those with the smallest keys stay: what is drawn hangs on the
    seed and the order of the rows alone, not on how they come in blocks.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng([seed, 3])
        self._keys = np.zeros(0)
        self._rows: list[npt.NDArray[Any]] = []
        self._held = 0
        self._highest = 1.0

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Take a block of rows (n, D) into account; those that are not finite never stay."""
        keys = self._random.random(len(rows))
        chosen = np.flatnonzero(keys < self._highest)
        with np.errstate(over="ignore"):
            block = rows[chosen].astype(np.float32)
        finite = np.isfinite(block).all(axis=1)
        self._rows.append(block[finite])
        self._keys = np.concatenate([self._keys, keys[chosen[finite]]])
        self._held += len(self._rows[-1])
        if self._held > self._size + self._size // 4:
            self._shrink()

    def rows(self) -> npt.NDArray[np.float32]:
        """What was drawn (m, D) float32, m at most ``size``, in the order of the stream."""
        self._shrink()
        return self._rows[0] if self._rows else np.zeros((0, 0), np.float32)

    def _shrink(self) -> None:
        if not self._rows:
            return
        rows = np.concatenate(self._rows)
        if len(rows) > self._size:
            kept = np.sort(np.argpartition(self._keys, self._size - 1)[: self._size])
            rows, self._keys = rows[kept], self._keys[kept]
            self._highest = float(self._keys.max())
        self._rows, self._held = [rows], len(rows)


def draw(blocks: Iterable[npt.NDArray[Any]], size: int, seed: int) -> npt.NDArray[np.float32]:
    """A sample of at most ``size`` rows of all blocks (n, D)."""
    sample = Sample(size, seed)
    for block in blocks:
        sample.add(block)
    return sample.rows()


def make_bundle(
    folder: Path,
    sample: npt.NDArray[np.float32],
    fit: Fit,
    *,
    bits: int,
    seed: int,
    attributes: dict[str, Any],
) -> Bundle:
    """Fit codes of ``bits`` on a sample (m, D) and write the bundle to ``folder``.

    Raises InputError where fewer than two rows differ.
    """
    weight, bias = fit_itq(sample, bits, seed)
    # As training does: elements of a hash vector are 1 in the mean. Codes do not hang on it.
    size = float(np.abs(sample[:_SCALED_ON] @ weight.T + bias).mean())
    description = EncoderDescription(
        feature_dim=fit.dim,
        bits=bits,
        hash_method="itq",
        backbone=fit.encoder,
        input_size=fit.patch_px,
        mpp=fit.mpp,
        training={
            IMPORTED: {
                "encoder": fit.encoder,
                "sample_rows": len(sample),
                "seed": seed,
                "attributes": attributes,
            }
        },
    )
    write_bundle(folder, description, LinearMap(weight / size, bias / size))
    return load_bundle(folder)


def check_bundle(bundle: Bundle, fit: Fit) -> None:
    """Raise where a bundle that was given cannot hash these features as they are."""
    description = bundle.description
    if description.projection is not None or description.normalized:
        message = (
            f"{bundle.directory} changes features before it hashes them, and imported features "
            "stay as they are: give an encoder without an MLP, or none to have codes fitted."
        )
        raise InputError(message)
    if description.feature_dim != fit.dim:
        message = (
            f"{bundle.directory} hashes features of width {description.feature_dim}, and these "
            f"are of width {fit.dim}: give the encoder that belongs to them, or none."
        )
        raise ConflictError(message)
