"""Small JSON files that carry the checksum of their own content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchknn.errors import DamageError, InputError
from patchknn.files import parse_json, read_json_bytes

# SHA-256: as fast as the short-cut hashes on processors of the last years (1.7 GB/s against
# 0.9 GB/s of BLAKE2b where this was chosen), and `sha256sum` is everywhere.
CHECKSUM = "sha256"


# What is larger is written in its canonical form: Python indents slowly, and nobody reads it.
_INDENTED = 64 << 10
_CLOSED = re.compile(rb',"checksum":"([0-9a-f]{64})"}\n')
_CLOSING = len(',"checksum":""}\n') + 64


def checksum_of(value: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical text (sorted keys, no blanks, ASCII) without ``checksum``."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with its checksum as the last entry."""
    return {**value, "checksum": checksum_of(value)}


def sealed_text(value: Mapping[str, Any]) -> bytes:
    """A sealed object as the bytes of a file."""
    canonical = _canonical(value)
    checksum = hashlib.sha256(canonical).hexdigest()
    if len(canonical) > _INDENTED:
        return canonical[:-1] + f',"checksum":"{checksum}"}}\n'.encode()
    content = {**value, "checksum": checksum}
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a name of a file that is no UTF-8
        text = json.dumps(content, indent=1).encode()
    return text + b"\n"


def read_sealed(file: Path, archive: Path) -> dict[str, Any]:
    """Read a sealed file of an archive.

    Raises DamageError naming the file where it is missing, is no JSON object or does not match
    its checksum.
    """
    try:
        data = read_json_bytes(file)
        value = parse_json(data, file)
    except InputError as error:
        raise damage(archive, str(error)) from None
    expected = _checksum_as_written(data) or _checksum_or_none(value)
    if expected is None or value.get("checksum") != expected:
        raise damage(archive, f"{file} was changed: it does not match its checksum.")
    return value


def _canonical(value: Mapping[str, Any]) -> bytes:
    content = {key: entry for key, entry in value.items() if key != "checksum"}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _checksum_as_written(data: bytes) -> str | None:
    """The checksum of a text in canonical form that its last entry confirms, without a second
    text being made of what it says; None of any other.
    """
    closing = _CLOSED.fullmatch(data, max(len(data) - _CLOSING, 0))
    if closing is None:
        return None
    digest = hashlib.sha256(memoryview(data)[: closing.start()])
    digest.update(b"}")
    checksum = digest.hexdigest()
    return checksum if checksum.encode() == closing[1] else None


def _checksum_or_none(value: Mapping[str, Any]) -> str | None:
    try:
        return checksum_of(value)
    except (ValueError, UnicodeError, RecursionError):
        return None


def check_format(
    value: Mapping[str, Any], file: Path, archive: Path, name: str, newest: int
) -> None:
    """Raise unless ``value`` says that it is of the format ``name``, up to version ``newest``.

    DamageError where it is something else, InputError where it is of a newer version.
    """
    version = value.get("format_version")
    if value.get("format") != name or type(version) is not int:
        raise damage(archive, f"{file} does not say that it is a {name}.")
    if version > newest:
        message = f"{file} is of format {version}; this patchknn reads {newest}: update it."
        raise InputError(message)


def damage(archive: Path, sentence: str) -> DamageError:
    """The error for one thing found wrong, with what to do next."""
    message = (
        f"{sentence} See all that is wrong by 'patchknn archive verify {archive}', "
        "then restore it from a copy."
    )
    return DamageError(message)
