"""Files that appear whole or not at all, and short fingerprints of large ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from patchknn.errors import InputError, UsageError

_QUICKHASH_WINDOW = 65536
# By libraries that are not Python inside: safetensors, DuckDB.
_TOLD_IN_WORDS = re.compile(r'\(os error (\d+)\)|"errno":"(\d+)"')


def keep_private() -> None:
    """Let what this process makes from now on be readable by its owner alone."""
    os.umask(0o077)


def fsync_file(path: Path) -> None:
    """Force the bytes of one file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Force the names in one directory to disk; a file system that cannot is left alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse fsync on directories
        pass
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """A name in the same directory that no other process uses: ``.tmp-<random>-<name>``."""
    return path.with_name(f".tmp-{os.urandom(6).hex()}-{path.name}")


@contextmanager
def errors_named(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError name ``path``, which people know, where it names nothing or ``temporary``.

    A full disk is noticed in writing, which names no file.
    """
    try:
        yield
    except OSError as error:
        at = error.filename2 or error.filename
        if at is None or (temporary is not None and Path(at).is_relative_to(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    except Exception as error:
        told = _TOLD_IN_WORDS.search(str(error))
        if told is None:
            raise
        number = int(told[1] or told[2])
        raise OSError(number, os.strerror(number), str(path)) from None


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it is synced and renamed to ``path``, else deleted.

    Another process sees the old file or the whole new one, never a part.
    """
    temporary = temporary_beside(path)
    try:
        with errors_named(path, temporary):
            yield temporary
            fsync_file(temporary)
            os.replace(temporary, path)
            fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def swap_directory(temporary: Path, directory: Path) -> None:
    """Put a folder that is complete in the place of ``directory``, which may be there."""
    fsync_directory(temporary)
    previous = None
    if directory.exists():
        previous = temporary_beside(directory)
        directory.rename(previous)
    try:
        temporary.rename(directory)
    except OSError:
        if previous is not None:
            previous.rename(directory)
        raise
    fsync_directory(directory.parent)
    if previous is not None:
        import shutil

        shutil.rmtree(previous)


class ErrorKeepingFile:
    """A new file that takes every write, and raises the first error when it is closed.

    For ``h5py.File(ErrorKeepingFile(path), "w")``: where the disk is full, HDF5 itself crashes the
    process while it closes a file. A context manager, to be left after HDF5 has closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._error is not None:
            with errors_named(self._path):
                raise self._error

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes."""
        return self._file.read(size) or b""

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; how many bytes were there."""
        return self._file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as files do."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it stands."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is buffered."""

    def write(self, data: memoryview) -> int:
        """All of the data, or the error is kept for the end."""
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                rest = rest[self._file.write(rest) or 0 :]
            except OSError as error:
                self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut or grow the file."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0


def check_output(path: Path, option: str, suffixes: Sequence[str] = ()) -> None:
    """Raise UsageError where an ``option`` names a file that could not be written in the end.

    ``path`` lies in no folder, is one, or ends in none of ``suffixes``, where there are some.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        told = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        message = f"{option} {path}: its name must end in {told}."
        raise UsageError(message)
    if not path.parent.is_dir():
        message = f"{option} {path}: there is no folder {path.parent}; make it first."
        raise UsageError(message)
    if path.is_dir():
        message = f"{option} {path} is a folder: name a file."
        raise UsageError(message)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: UTF-8, indented, ending in a newline; NaN is refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, *, limit: int = 64 << 20) -> dict[str, Any]:
    """Read a JSON object of at most ``limit`` bytes.

    Raises InputError naming the file where it is missing, no plain file (a link to one is fine),
    too large or not a JSON object.
    """
    return parse_json(read_json_bytes(path, limit=limit), path)


def read_json_bytes(path: Path, *, limit: int = 64 << 20) -> bytes:
    """The bytes of a file of ``read_json``; errors of these."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a device may have no end
            message = f"{path} is not a plain file."
            raise InputError(message)
        if found.st_size > limit:
            size = found.st_size
            message = f"{path} holds {size} bytes, more than any such file of patchknn ({limit})."
            raise InputError(message)
        return path.read_bytes()
    except FileNotFoundError:
        message = f"{path} does not exist."
        raise InputError(message) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise InputError(message) from None


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in the bytes of the file ``path``; InputError where they are none."""
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not valid JSON: {error}"
        raise InputError(message) from None
    if not isinstance(value, dict):
        message = f"{path} does not hold a JSON object."
        raise InputError(message)
    return value


def _refuse_constant(name: str) -> None:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and the time of the last change in ns; of an MRXS slide of all its files."""
    found = [part.stat() for part in _parts(path)]
    return sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)


def quickhash(path: Path) -> bytes:
    """16 bytes that change with a file's size, beginning, middle or end (64 KiB each).

    Reading a gigapixel slide whole to see whether it changed would cost minutes. Of an MRXS slide
    they change with the files in its folder too, as OpenSlide's own quickhash does.
    """
    parts = _parts(path)
    if len(parts) == 1:
        return _quickhash(path)
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(os.fsencode(part.name) + b"\0" + _quickhash(part))
    return digest.digest()


def _parts(path: Path) -> list[Path]:
    """The files of a slide: what lies in the folder beside an ``.mrxs`` is the slide itself."""
    folder = path.with_suffix("")
    if path.suffix.lower() != ".mrxs" or not folder.is_dir():
        return [path]
    return [path, *sorted(part for part in folder.iterdir() if part.is_file())]


def _quickhash(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        last = max(size - _QUICKHASH_WINDOW, 0)
        for offset in sorted({0, last // 2, last}):
            file.seek(offset)
            digest.update(file.read(_QUICKHASH_WINDOW))
    return digest.digest()
