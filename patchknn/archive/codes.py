"""Whether codes are those of their features, by the archive's own hash map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.bundle import Bundle
from patchknn.errors import ConflictError
from patchknn.hamming.packing import unpack_bits

# Sums of float64 products differ between machines and batch sizes by some 1e-15 of their size.
_TOLERANCE = 1e-9


def wrong_codes(
    bundle: Bundle, features: npt.NDArray[Any], codes: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Rows (n,) whose code (n, K/8) is not that of their features (n, D).

    A bit whose hash vector is 0 but for rounding may be either.
    """
    vectors = bundle.hash_vectors(features)
    different = (vectors > 0) != unpack_bits(codes)
    if not different.any():
        return np.zeros(len(codes), bool)
    weight = bundle.hash_map.weight.astype(np.float64)
    scale = np.linalg.norm(features.astype(np.float64), axis=1)[:, None]
    scale = scale * np.linalg.norm(weight, axis=1) + np.abs(bundle.hash_map.bias)
    certain: npt.NDArray[np.bool_] = np.abs(vectors) > _TOLERANCE * scale
    return np.asarray((different & certain).any(axis=1))


def check_codes(bundle: Bundle, features: npt.NDArray[Any], codes: npt.NDArray[np.uint8]) -> None:
    """Raise ConflictError where a code was not made from these features by this bundle."""
    wrong = int(wrong_codes(bundle, features, codes).sum())
    if wrong:
        message = (
            f"{wrong} of {len(codes)} codes do not belong to their features: they must be made "
            f"of the rounded features by the encoder {bundle.fingerprint[:16]}."
        )
        raise ConflictError(message)
