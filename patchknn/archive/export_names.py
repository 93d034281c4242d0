"""What slides and patients are called in an export: as in the archive, or by pseudonyms."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchknn.archive.paths import moved_path
from patchknn.archive.rows import Source
from patchknn.archive.sealed import checksum_of
from patchknn.archive.strings import encode
from patchknn.errors import InputError

_KEY_BYTES = 32
_LEAST_BYTES = 16
_LONGEST_KEY = 1 << 16
_DIGITS = 16  # 64 bits: two of a million names are alike with a chance of 3e-8


class Names:
    """Every name as it is."""

    is_hidden = False

    def slide(self, name: str) -> str:
        """The name of a slide or image in the export."""
        return name

    def patient(self, name: str | None) -> str | None:
        """The name of a patient in the export, None where it is unknown."""
        return name

    def source(self, stored: Source, archive: Path, to: Path) -> Source:
        """The record of a source, with its path as it is stored, for another archive."""
        return stored._replace(path=moved_path(stored.path, archive, to))

    def mark(self, content: Mapping[str, Any]) -> str:
        """A text that stands for the content of an export and tells nothing of it."""
        return checksum_of(content)


class Pseudonyms(Names):
    """Names made of a secret (HMAC-SHA256): the same for the same secret, and nobody's without it.

    ``S-`` and ``P-`` with 16 hexadecimal digits. What else identifies a file (path, size, time,
    quickhash) goes too; in the place of size and quickhash stands one keyed digest, so that two
    exports still tell the same content from another.
    """

    is_hidden = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def slide(self, name: str) -> str:
        """``S-<16 hexadecimal digits>``."""
        return f"S-{self._digest(b'slide', encode(name)).hex()[:_DIGITS]}"

    def patient(self, name: str | None) -> str | None:
        """``P-<16 hexadecimal digits>``."""
        if name is None:
            return None
        return f"P-{self._digest(b'patient', encode(name)).hex()[:_DIGITS]}"

    def source(self, stored: Source, archive: Path, to: Path) -> Source:  # noqa: ARG002
        """The record of a source without anything that names its file."""
        content = stored.size.to_bytes(8, "little", signed=True) + stored.quickhash
        return Source(
            name=self.slide(stored.name),
            path="",
            size=0,
            mtime_ns=0,
            quickhash=self._digest(b"content", content)[:16],
            mpp=stored.mpp,
            patient=self.patient(stored.patient),
        )

    def mark(self, content: Mapping[str, Any]) -> str:
        """As of ``Names``, keyed: names that were chosen cannot be tried out on it."""
        return self._digest(b"export", checksum_of(content).encode()).hex()

    def _digest(self, kind: bytes, text: bytes) -> bytes:
        return hmac.digest(self._secret, kind + b"\0" + text, hashlib.sha256)


def read_secret(file: Path, *, create: bool = True) -> bytes:
    """The secret in a key file; made of 32 random bytes, for its owner alone, where there is none.

    Raises InputError where it is no secret: a file of 16 to 65536 bytes.
    """
    if create and not file.exists():
        secret = secrets.token_bytes(_KEY_BYTES)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # another process was faster
            pass
        else:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(secret)
                opened.flush()
                os.fsync(opened.fileno())
            return secret
    if not file.is_file():
        reason = "is not a file" if file.exists() else "does not exist"
        message = f"{file} {reason}: give --deidentify a file that holds a secret."
        raise InputError(message)
    size = file.stat().st_size
    if not _LEAST_BYTES <= size <= _LONGEST_KEY:
        message = (
            f"{file} holds {size} bytes, and a secret {_LEAST_BYTES} to {_LONGEST_KEY}: name a "
            "file that is not there yet, and it is made."
        )
        raise InputError(message)
    return file.read_bytes()


def is_private(file: Path) -> bool:
    """Whether nobody but its owner may read a file."""
    return not file.stat().st_mode & 0o077
