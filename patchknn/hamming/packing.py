"""Bits, packed codes, machine words and hexadecimal text: the four faces of a hash code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.errors import UsageError

MIN_BITS = 8
MAX_BITS = 1024
# Made once: one query asks for them more than once.
_BIG_ENDIAN, _NATIVE = np.dtype(">u8"), np.dtype(np.uint64)


def check_bits(bits: int) -> None:
    """Raise UsageError unless ``bits`` is a multiple of 8 from 8 to 1024."""
    if not MIN_BITS <= bits <= MAX_BITS or bits % 8:
        message = f"--bits {bits}: a code has {MIN_BITS} to {MAX_BITS} bits, in multiples of 8."
        raise UsageError(message)


def pack_bits(bits: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Truth values (N, K) → codes (N, K/8) uint8, the first bit highest in the first byte."""
    values = np.asarray(bits).astype(bool, copy=False)
    if values.ndim != 2 or values.shape[1] % 8:
        message = f"bits of shape {values.shape} are not (N, K) with K a multiple of 8"
        raise ValueError(message)
    return np.packbits(values, axis=1)


def unpack_bits(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Codes (N, K/8) → truth values (N, K)."""
    return np.unpackbits(np.asarray(codes, np.uint8), axis=1).astype(bool)


def words(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Codes (N, K/8) → (N, ⌈K/64⌉) uint64, first byte highest, zeros after the last one.

    The order of the words, first word first, is the order of the bytes, and popcounts and XOR of
    words are those of the codes.
    """
    codes = np.asarray(codes, np.uint8)
    count, width = codes.shape
    padded = np.zeros((count, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = codes
    return padded.view(">u8").astype(np.uint64)


def words_of(code: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """One code (K/8,) → (⌈K/64⌉,) uint64, as ``words`` gives it and quicker."""
    if len(code) % 8 == 0 and code.flags.c_contiguous:
        return code.view(_BIG_ENDIAN).astype(_NATIVE)
    padded = code.tobytes().ljust(-(-len(code) // 8) * 8, b"\0")
    return np.frombuffer(padded, _BIG_ENDIAN).astype(_NATIVE)


def sort_order(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The stable permutation (N,) that puts codes (N, K/8) into the order of their bytes."""
    columns = words(codes)
    if columns.shape[1] == 1:
        return np.argsort(columns[:, 0], kind="stable").astype(np.int64, copy=False)
    return np.lexsort(columns.T[::-1]).astype(np.int64, copy=False)


def sort_keys(codes: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Codes (N, K/8) → (N,) keys in one comparable dtype, ordered as the bytes are.

    uint64 up to 64 bits; above that byte strings, whose trailing zeros NumPy ignores, which
    keys of one length do not mind.
    """
    return keys_of_words(words(codes))


def keys_of_words(columns: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
    """Words (N, W) → (N,) keys as ``sort_keys`` makes them."""
    if columns.shape[1] == 1:
        return np.ascontiguousarray(columns[:, 0])
    big_endian = np.ascontiguousarray(columns.astype(">u8"))
    return big_endian.view(f"S{8 * columns.shape[1]}")[:, 0]


def code_to_hex(code: npt.NDArray[np.uint8] | bytes) -> str:
    """One code (K/8,) as K/4 hexadecimal digits."""
    return bytes(code).hex()


def code_from_hex(text: str) -> npt.NDArray[np.uint8]:
    """K/4 hexadecimal digits → one code (K/8,) uint8; ValueError for anything else."""
    return np.frombuffer(bytes.fromhex(text), np.uint8)
