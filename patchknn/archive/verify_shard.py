"""Everything that can be wrong within one shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from patchknn.archive.checksums import outside_checksum, span_checksum
from patchknn.archive.codes import wrong_codes
from patchknn.archive.description import SHARDS
from patchknn.archive.file_checks import file_problem
from patchknn.archive.shard import Shard
from patchknn.archive.strings import name_key
from patchknn.bundle import Bundle
from patchknn.errors import DamageError
from patchknn.hamming.packing import sort_keys

_BLOCK_VALUES = 1 << 22  # features are read in blocks of some 8 to 32 MB


def shard_findings(
    shard: Shard, bundle: Bundle | None, advance: Callable[[int], None]
) -> Iterator[tuple[str, str]]:
    """(file below ``shards/``, sentence) for each thing wrong.

    Files first, then checksums, then what the values mean, which is looked at only where the
    files can be mapped at all. Without a bundle codes are not compared with their features.
    """
    folder = shard.path / SHARDS
    absent = set()
    for record in shard.description.files:
        problem = file_problem(folder / record.file, record.size)
        if problem is not None:
            absent.add(record.file)
            yield record.file, problem
    yield from _checksums(shard, absent, advance)
    if not absent:
        yield from _values(shard, bundle)


def _checksums(
    shard: Shard, absent: set[str], advance: Callable[[int], None]
) -> Iterator[tuple[str, str]]:
    folder = shard.path / SHARDS
    spans = defaultdict(list)
    try:
        for name, place in shard.description.arrays.items():
            spans[place.file].append((place.offset, place.nbytes))
            if place.file in absent:
                continue
            found = span_checksum(folder / place.file, place.offset, place.nbytes)
            if found != place.checksum:
                yield place.file, f"The bytes of {name} do not match their checksum."
            advance(place.nbytes)
        for record in shard.description.files:
            if record.file in absent:
                continue
            if outside_checksum(folder / record.file, spans[record.file]) != record.checksum:
                yield record.file, "The bytes outside its arrays do not match their checksum."
    except OSError as error:
        yield f"{shard.uuid}.json", f"A file of the shard cannot be read: {error.strerror}."


def _values(shard: Shard, bundle: Bundle | None) -> Iterator[tuple[str, str]]:
    json_file = f"{shard.uuid}.json"
    try:
        source, _ = shard.source, shard.labels
        names, keys = shard.source_names, shard.source_keys
        _ = shard.source_record(0), shard.patients, shard.thumbnail(0)
    except DamageError as error:
        yield json_file, str(error).split(" See all that is wrong by ")[0]
        return
    order = sort_keys(shard.codes)
    if (order[1:] < order[:-1]).any():
        yield json_file, "Its rows are not in the order of their codes."
    expected = np.fromiter((name_key(name) for name in names), np.uint64, len(names))
    if not np.array_equal(expected, keys) or (keys[1:] < keys[:-1]).any():
        yield json_file, "Its source names do not match their keys."
    elif len(set(names)) != len(names):
        yield json_file, "It holds a source name twice."
    by_place = np.lexsort((shard.coords[:, 1], shard.coords[:, 0], source))
    ids = np.column_stack([source, shard.coords])[by_place]
    repeated = int((ids[1:] == ids[:-1]).all(axis=1).sum())
    if repeated:
        yield json_file, f"{repeated} of its patches are there twice."
    yield from _features(shard, bundle)


def _features(shard: Shard, bundle: Bundle | None) -> Iterator[tuple[str, str]]:
    json_file = f"{shard.uuid}.json"
    infinite = wrong = 0
    step = max(_BLOCK_VALUES // shard.features.shape[1], 1)
    for start in range(0, shard.n, step):
        features = shard.features[start : start + step]
        finite = np.isfinite(features).all(axis=1)
        infinite += int((~finite).sum())
        if bundle is not None:
            codes = shard.codes[start : start + step]
            wrong += int(wrong_codes(bundle, features[finite], codes[finite]).sum())
    if infinite:
        yield json_file, f"{infinite} of its rows have a feature that is not finite."
    if wrong:
        yield json_file, f"{wrong} of its codes are not those of their features."
