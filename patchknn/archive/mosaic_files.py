"""Mosaics that are kept in an archive: ``index/mosaics/<key>/``, derived as its index is.

Plain little-endian arrays, one file each, memory-mapped, and ``mosaics.json`` with their checksums.
The key says of which shards and removals they are, and with which settings they were made: what
is changed makes another key, and what is deleted is made anew.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchknn.archive.checksums import array_checksum
from patchknn.archive.index.array_files import ArrayFile, write_array
from patchknn.archive.index.build import give_name
from patchknn.archive.index.layout import ArrayRecord, array_file
from patchknn.archive.index.names import TEMPORARY, mosaics_folder
from patchknn.archive.manifest import REMOVE
from patchknn.archive.mapping import map_array
from patchknn.archive.mosaics import Mosaic, Mosaics
from patchknn.archive.sealed import CHECKSUM, check_format, read_sealed, sealed_text
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.snapshot import Snapshot
from patchknn.archive.strings import OptionalStringTable, StringTable, offsets_fit, pack_strings
from patchknn.errors import PatchknnError
from patchknn.files import errors_named, fsync_directory, fsync_file

FORMAT = "patchknn-mosaics"
FORMAT_VERSION = 1
HEAD = "mosaics.json"
_UNCHECKED = frozenset({"features"})  # on opening: they are large, and 'archive verify' reads them


class Head(NamedTuple):
    """What ``mosaics.json`` says: how they were made, and of which arrays they are."""

    settings: dict[str, Any]
    arrays: dict[str, ArrayRecord]


def mosaics_key(snapshot: Snapshot, settings: dict[str, Any]) -> str:
    """The name of the folder for this snapshot and these settings: 64 hexadecimal digits."""
    manifest = snapshot.manifest
    removals = [change for change in manifest.changes if change.kind == REMOVE]
    lines = [
        f"{FORMAT} {FORMAT_VERSION} {manifest.archive_id}",
        json.dumps(settings, sort_keys=True),
        *sorted(map(" ".join, zip(manifest.shards.uuid, manifest.shards.checksum, strict=True))),
        *sorted(f"{change.uuid} {change.checksum}" for change in removals),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_mosaics(
    archive: Path,
    key: str,
    stored: ArchiveSettings,
    settings: dict[str, Any],
    made: Iterable[Mosaic],
    *,
    replace: bool = False,
) -> None:
    """Write mosaics, given by name, as they are made: beside the others first, then under ``key``.

    Whatever goes wrong, nothing of them is left. Those of that key that are there stay, unless
    ``replace``. Raises OSError where the archive cannot be
    written to.
    """
    folder = mosaics_folder(archive)
    temporary = folder / f"{TEMPORARY}{key[:16]}-{secrets.token_hex(6)}"
    try:
        with errors_named(folder, temporary):
            temporary.mkdir(parents=True)
            arrays = _write_arrays(temporary, stored, made)
            head = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "checksum_algorithm": CHECKSUM,
                "archive_id": stored.archive_id,
                "key": key,
                "settings": settings,
                "arrays": {name: record._asdict() for name, record in arrays.items()},
            }
            file = temporary / HEAD
            file.write_bytes(sealed_text(head))
            fsync_file(file)
            fsync_directory(temporary)
            give_name(temporary, folder / key, replace=replace)
            fsync_directory(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_arrays(
    folder: Path, stored: ArchiveSettings, made: Iterable[Mosaic]
) -> dict[str, ArrayRecord]:
    kinds = _kinds(stored)
    names: list[str] = []
    patients: list[str | None] = []
    patches, starts = [], [0]
    with (
        ArrayFile(folder, "features", *kinds["features"]) as features,
        ArrayFile(folder, "codes", *kinds["codes"]) as codes,
        ArrayFile(folder, "coords", *kinds["coords"]) as coords,
        ArrayFile(folder, "contents", *kinds["contents"]) as contents,
        ArrayFile(folder, "fingerprints", *kinds["fingerprints"]) as fingerprints,
    ):
        for mosaic in made:
            names.append(mosaic.name)
            patients.append(mosaic.patient)
            patches.append(mosaic.patches)
            starts.append(starts[-1] + mosaic.size)
            features.append(mosaic.features)
            codes.append(mosaic.codes)
            coords.append(mosaic.coords)
            contents.append(np.frombuffer(mosaic.content, np.uint8)[None])
            fingerprints.append(np.frombuffer(mosaic.fingerprint, np.uint8)[None])
        arrays = {
            "features": features.record,
            "codes": codes.record,
            "coords": coords.record,
            "contents": contents.record,
            "fingerprints": fingerprints.record,
        }
    small: dict[str, Any] = {"patches": np.array(patches, "<i8"), "starts": np.array(starts, "<i8")}
    small["names_bytes"], small["names_offsets"] = pack_strings(names)
    small["patients_bytes"], small["patients_offsets"] = pack_strings(patients)
    return arrays | {name: write_array(folder, name, values) for name, values in small.items()}


def read_head(folder: Path, archive: Path) -> Head:
    """Read ``mosaics.json``; PatchknnError where it is missing, changed or of another version."""
    file = folder / HEAD
    value = read_sealed(file, archive)
    check_format(value, file, archive, FORMAT, FORMAT_VERSION)
    try:
        arrays = {
            str(name): ArrayRecord(
                str(record["dtype"]), tuple(map(int, record["shape"])), str(record["checksum"])
            )
            for name, record in value["arrays"].items()
        }
        return Head(dict(value["settings"]), arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{file} lacks an entry or holds one that cannot be ({error})."
        raise PatchknnError(message) from None


def open_mosaics(folder: Path, archive: Path, stored: ArchiveSettings) -> Mosaics:
    """Map the mosaics in a folder.

    All but the features are compared with their checksums. PatchknnError where something is
    missing, changed or of another shape.
    """
    head = read_head(folder, archive)
    arrays = {}
    for name, (dtype, row) in _kinds(stored).items():
        record = head.arrays.get(name)
        if record is None or record.dtype != dtype or record.shape[1:] != row:
            message = f"{folder / HEAD} has no fitting array {name}."
            raise PatchknnError(message)
        file = array_file(folder, name)
        try:
            values = map_array(file, dtype, record.shape)
        except (OSError, ValueError) as error:
            message = f"{file} cannot be mapped ({error})."
            raise PatchknnError(message) from None
        if name not in _UNCHECKED and array_checksum(values) != record.checksum:
            message = f"{file} was changed: it does not match its checksum."
            raise PatchknnError(message)
        arrays[name] = values
    n, entries = len(arrays["patches"]), len(arrays["codes"])
    starts = arrays["starts"]
    fits = (
        len(starts) == n + 1
        and len(arrays["contents"]) == len(arrays["fingerprints"]) == n
        and len(arrays["features"]) == len(arrays["coords"]) == entries
        and starts[0] == 0
        and starts[-1] == entries
        and bool((np.diff(starts) > 0).all())
        and all(
            len(arrays[f"{name}_offsets"]) == n + 1
            and offsets_fit(arrays[f"{name}_bytes"], arrays[f"{name}_offsets"])
            for name in ("names", "patients")
        )
    )
    if not fits:
        message = f"The arrays in {folder} do not fit each other."
        raise PatchknnError(message)
    names = StringTable(arrays.pop("names_bytes"), arrays.pop("names_offsets"))
    patients = StringTable(arrays.pop("patients_bytes"), arrays.pop("patients_offsets"))
    return Mosaics(names=names, patients=OptionalStringTable(patients), **arrays)


def _kinds(stored: ArchiveSettings) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Of each array the dtype, and the shape of one entry."""
    return {
        "patches": ("<i8", ()),
        "starts": ("<i8", ()),
        "contents": ("|u1", (16,)),
        "fingerprints": ("|u1", (32,)),
        "features": (np.dtype(stored.feature_dtype).newbyteorder("<").str, (stored.feature_dim,)),
        "codes": ("|u1", (stored.bits // 8,)),
        "coords": ("<i8", (2,)),
        "names_bytes": ("|u1", ()),
        "names_offsets": ("<i8", ()),
        "patients_bytes": ("|u1", ()),
        "patients_offsets": ("<i8", ()),
    }
