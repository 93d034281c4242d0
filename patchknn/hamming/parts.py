"""The tables of multi-index hashing: codes by the value of some of their bits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_WORTH_INDEXING = 2048  # codes; fewer are scanned in well under a microsecond or two
_FEW_CODES = 1 << 23
_BLOCK_CODES = 1 << 22
_BLOCK_ENTRIES = 1 << 23


class Part(NamedTuple):
    """One table: the codes by the value of their bits [first_bit, first_bit + width).

    bounds (2**width + 1,) uint32: the entries of value v are bounds[v] to bounds[v + 1]. order
    (U,) uint32: entry → code number, ascending within a value. window (U,) uint64: 64 bits of the
    entry's code, the code itself up to 64 bits, else those from first_bit on, cyclically. Both are
    None in part 0, which begins at bit 0: the codes lie in that order themselves.
    """

    first_bit: int
    width: int
    bounds: npt.NDArray[np.uint32]
    order: npt.NDArray[np.uint32] | None = None
    window: npt.NDArray[np.uint64] | None = None


def part_widths(bits: int, n_codes: int) -> list[tuple[int, int]]:
    """First bit and width of each part of an index over ``n_codes`` distinct codes.

    Empty where a scan serves as well. Three parts of 64 bits cost at most 40 bytes a code, four 52,
    with the codes and the bounds of their positions: the values of all parts together are no more
    than the codes. The fourth saves look-ups where few bits tell codes apart, and memory matters
    least: in archives of up to some million codes.
    """
    if n_codes < _WORTH_INDEXING:
        return []
    long = 64 if n_codes <= _FEW_CODES else 97
    count = 2 if bits < 48 else 3 if bits < long else 4
    starts = [part * bits // count for part in range(count + 1)]
    rooms = [starts[part + 1] - starts[part] for part in range(count)]
    widths = [1] * count
    grown = True
    while grown:
        grown = False
        for part in range(count):
            values = sum(1 << width for width in widths) + (1 << widths[part])
            if widths[part] < rooms[part] and values <= n_codes:
                widths[part] += 1
                grown = True
    return list(zip(starts[:-1], widths, strict=True))


def empty_parts(bits: int, n_codes: int) -> tuple[Part, ...]:
    """Parts with arrays of the right shapes and dtypes, to be filled by ``build_parts``."""
    parts = []
    for number, (first_bit, width) in enumerate(part_widths(bits, n_codes)):
        bounds = np.zeros((1 << width) + 1, np.uint32)
        order = np.zeros(n_codes, np.uint32) if number else None
        window = np.zeros(n_codes, np.uint64) if number else None
        parts.append(Part(first_bit, width, bounds, order, window))
    return tuple(parts)


def build_parts(bits: int, codes: Words, out: tuple[Part, ...] | None = None) -> tuple[Part, ...]:
    """The parts over distinct codes (U, W), in bounded memory.

    Fills and returns ``out`` where it is given: parts as ``part_widths`` says, whose arrays (memory
    maps, for instance) are written once, from the first element to the last.
    """
    parts = empty_parts(bits, len(codes)) if out is None else out
    for part in parts:
        _fill_bounds(part, codes)
        if part.order is not None and part.window is not None:
            _fill_entries(bits, part, part.order, part.window, codes)
    return parts


def part_values(part: Part, codes: Words) -> Words:
    """The values (n,) uint64 of the part's bits in codes (n, W)."""
    shift = np.uint64(64 - part.width)
    return np.asarray(_bits_from(codes, part.first_bit) >> shift)


def windows(bits: int, first_bit: int, codes: Words) -> Words:
    """The windows (n,) of codes (n, W), as an entry of a part from ``first_bit`` on has them."""
    if codes.shape[1] == 1:
        return codes[:, 0]
    window = _bits_from(codes, first_bit)
    left = bits - first_bit
    return window | codes[:, 0] >> np.uint64(left) if left < 64 else window


def _bits_from(codes: Words, first_bit: int) -> Words:
    word, shift = divmod(first_bit, 64)
    found = codes[:, word] << np.uint64(shift)
    if shift and word + 1 < codes.shape[1]:
        found |= codes[:, word + 1] >> np.uint64(64 - shift)
    return np.asarray(found)


def _fill_bounds(part: Part, codes: Words) -> None:
    counts = np.zeros(1 << part.width, np.int64)
    for start in range(0, len(codes), _BLOCK_CODES):
        values = part_values(part, codes[start : start + _BLOCK_CODES])
        counts += np.bincount(values.astype(np.int64), minlength=len(counts))
    part.bounds[0] = 0
    part.bounds[1:] = np.cumsum(counts)


def _fill_entries(
    bits: int,
    part: Part,
    order: npt.NDArray[np.uint32],
    window: npt.NDArray[np.uint64],
    codes: Words,
) -> None:
    bounds = np.asarray(part.bounds).astype(np.int64)
    first = 0
    while first < len(bounds) - 1:
        # As many values as fit into a block, and at least one.
        last = int(np.searchsorted(bounds, bounds[first] + _BLOCK_ENTRIES, side="right")) - 1
        last = max(last, first + 1)
        entry = int(bounds[first])
        numbers, values, found = [], [], []
        for start in range(0, len(codes), _BLOCK_CODES):
            block = codes[start : start + _BLOCK_CODES]
            value = part_values(part, block)
            chosen = np.flatnonzero((value >= np.uint64(first)) & (value < np.uint64(last)))
            numbers.append((chosen + start).astype(np.uint32))
            values.append(value[chosen])
            found.append(windows(bits, part.first_bit, block[chosen]))
            if last == first + 1:  # one value, however many have it: in order as it is
                order[entry : entry + len(chosen)] = numbers.pop()
                window[entry : entry + len(chosen)] = found.pop()
                values.pop()
                entry += len(chosen)
        if numbers:
            places = _sorted_places(np.concatenate(values))
            order[entry : entry + len(places)] = np.concatenate(numbers)[places]
            window[entry : entry + len(places)] = np.concatenate(found)[places]
        first = last


def _sorted_places(values: Words) -> Words:
    """The stable order of values below 2**32."""
    # Value and place in one key: plain sorting of integers is many times faster than argsort.
    keys = values << np.uint64(32) | np.arange(len(values), dtype=np.uint64)
    keys.sort()
    return np.asarray(keys & np.uint64(0xFFFFFFFF))
