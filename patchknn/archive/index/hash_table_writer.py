"""Write tables from 64-bit hashes to numbers, however many, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.array_files import ArrayFile
from patchknn.archive.index.hash_table import Hashes, last_bits, prefix_bits
from patchknn.archive.index.layout import ArrayRecord

Chunks = Iterable[tuple[Hashes, npt.NDArray[np.uint32]]]
_IN_MEMORY = 1 << 23  # entries that are sorted at once: some 200 MB in passing


def write_hash_table(
    folder: Path,
    name: str,
    chunks: Chunks,
    n_entries: int,
    *,
    checks: bool = False,
    in_memory: int = _IN_MEMORY,
) -> dict[str, ArrayRecord]:
    """Write ``<name>_bounds`` and ``<name>_entries`` of at most ``n_entries`` (hash, entry) pairs.

    With ``checks`` also ``<name>_checks``. Where they are many they are first spread over files by
    their first bits.
    """
    parts = 0
    while n_entries >> parts > in_memory:
        parts += 1
    spread = _spread(folder, name, chunks, parts) if parts else None
    if spread is None:
        whole = _joined(chunks)
        found, ranges = len(whole[0]), iter([whole])
        del whole
    else:
        found, ranges = spread
        if found <= in_memory or parts > prefix_bits(found):
            parts, ranges = 0, iter([_joined(ranges)])
    prefix = prefix_bits(found)
    with ExitStack() as stack:
        files = {
            column: stack.enter_context(ArrayFile(folder, f"{name}_{column}", "<u4"))
            for column in ("entries", "bounds", *(["checks"] if checks else []))
        }
        entries_file, bounds_file = files["entries"], files["bounds"]
        bounds_file.append(np.zeros(1, np.uint32))
        first, step = 0, max((1 << prefix) >> parts, 1)
        for hashes, entries in ranges:
            # Bucket and entry in one key: plain sorting of integers is many times faster.
            keys = hashes >> np.uint64(64 - prefix) << np.uint64(32) | entries
            if checks:
                order = np.argsort(keys)
                keys = keys[order]
                files["checks"].append(last_bits(hashes[order]))
            else:
                keys.sort()
            entries_file.append((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32))
            buckets = (keys >> np.uint64(32)).astype(np.int64) - first
            counts = np.bincount(buckets, minlength=step)
            bounds_file.append(_ends(entries_file.length, counts))
            first += step
        return {f"{name}_{column}": file.record for column, file in files.items()}


def _ends(total: int, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    ends: npt.NDArray[np.int64] = np.cumsum(counts)
    return ends + int(total - ends[-1])


def _joined(parts: Chunks) -> tuple[Hashes, npt.NDArray[np.uint32]]:
    gathered = list(parts)
    hashes = np.concatenate([part for part, _ in gathered] or [np.zeros(0, np.uint64)])
    entries = np.concatenate([part for _, part in gathered] or [np.zeros(0, np.uint32)])
    return hashes, entries


def _spread(
    folder: Path, name: str, chunks: Chunks, parts: int
) -> tuple[int, Iterator[tuple[Hashes, npt.NDArray[np.uint32]]]]:
    kind = np.dtype([("hash", "<u8"), ("entry", "<u4")])
    paths = [folder / f".spill-{name}-{number}" for number in range(1 << parts)]
    files = [path.open("xb") for path in paths]
    found = 0
    try:
        for hashes, entries in chunks:
            found += len(hashes)
            where = (hashes >> np.uint64(64 - parts)).astype(np.int64)
            order = np.argsort(where, kind="stable")
            pairs = np.empty(len(hashes), kind)
            pairs["hash"], pairs["entry"] = hashes[order], entries[order]
            ends = np.searchsorted(where[order], np.arange(len(files) + 1))
            for file, start, stop in zip(files, ends[:-1], ends[1:], strict=True):
                file.write(pairs[start:stop].view(np.uint8).data)
    finally:
        for file in files:
            file.close()

    def ranges() -> Iterator[tuple[Hashes, npt.NDArray[np.uint32]]]:
        for path in paths:
            pairs = np.fromfile(path, kind)
            path.unlink()
            yield np.ascontiguousarray(pairs["hash"]), np.ascontiguousarray(pairs["entry"])

    return found, ranges()
