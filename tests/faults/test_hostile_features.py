"""Feature files that are none: pickles, giant shapes, values that are no numbers."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from small_archives import worn_archive

_DIM = 12


class _Trap:
    """Whose pickle, when it is read, makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self):
        return (os.mkdir, (str(self._file),))


def _header(text: str, *, version: int = 1, data: bytes = b"") -> bytes:
    body = text.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body + data


def _shaped(shape: str, dtype: str = "<f4", data: bytes = b"\0" * 480) -> bytes:
    return _header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}", data=data)


FILES = {
    "a shape of 2**62": _shaped(f"({1 << 62}, {_DIM})"),
    "a shape of 2**63": _shaped(f"({1 << 63}, {_DIM})"),
    "a shape of 2**70": _shaped(f"({1 << 70}, {_DIM})"),
    "a shape whose bytes are 2**64": _shaped(f"({1 << 60}, {_DIM})", "<f8"),
    "a negative shape": _shaped(f"(-1, {_DIM})"),
    "a shape of truth": _shaped(f"(True, {_DIM})"),
    "a shape of text": _shaped(f"('a', {_DIM})"),
    "a shape without rows": _shaped(f"(0, {_DIM})", data=b""),
    "many dimensions": _shaped("(" + "1, " * 70 + ")"),
    "no dimension": _shaped("()"),
    "fewer bytes than it says": _shaped(f"(10, {_DIM})", data=b"\0" * 100),
    "a deep header": _header("(" * 3000 + ")" * 3000),
    "a header that runs": _header("__import__('os').mkdir('/tmp/owned')"),
    "a long header": _header("{'descr': '<f4', 'shape': (1, 12)," + " " * 70_000 + "}", version=2),
    "a header of 4 GiB": b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 32) - 1) + b"{}",
    "an unknown version": b"\x93NUMPY\x09\x00" + b"\0" * 100,
    "a dtype of fields": _header(
        "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (3,), }",
        data=b"\0" * 100,
    ),
    "a giant dtype": _shaped("(1,)", "|V1152921504606846976"),
    "objects": _shaped(f"(1, {_DIM})", "|O", data=pickle.dumps([1] * _DIM)),
    "text": _shaped(f"(1, {_DIM})", "<U1"),
    "complex numbers": _shaped(f"(1, {_DIM})", "<c8"),
    "truth": _shaped(f"(1, {_DIM})", "|b1"),
    "dates": _shaped(f"(1, {_DIM})", "<M8[s]"),
    "nothing": b"",
    "half of a magic": b"\x93NUM",
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "an empty zip": b"PK\x05\x06" + b"\0" * 18,
    "noise": bytes(range(256)) * 4,
}
ARRAYS = {
    "NaN": np.full((2, _DIM), np.nan),
    "infinity": np.full((2, _DIM), np.inf),
    "too large for float16": np.full((2, _DIM), 1e30),
    "another dimension": np.zeros((2, _DIM + 1)),
    "three dimensions": np.zeros((2, 2, _DIM)),
    "giant integers": np.full((2, _DIM), (1 << 64) - 1, np.uint64),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return worn_archive(tmp_path_factory.mktemp("asked"))


def _asked(children, archive, file):
    """One query of a file among two good ones: exit code, answers, stderr."""
    good = file.parent / "good.npy"
    np.save(good, np.ones(_DIM))
    words = ["query", str(archive), str(good), str(file), str(good), "--format", "ndjson"]
    asked = {"archive": str(archive), "commands": [words], "memory": 6 << 30}
    reply = children.ask("commands", asked)
    assert reply.error is None, reply.error
    assert not reply.hung, reply
    assert reply.code == 0, reply
    (_, (_, _, code, out, err)) = reply.told
    assert "unexpected" not in err, err
    assert "out of memory" not in err, err
    return code, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("what", [*FILES, *ARRAYS, "a pickle", "objects with a trap", "a folder"])
def test_what_is_no_array_of_features_is_said_and_the_rest_is_answered(
    children, archive, tmp_path, what
):
    file, trap = tmp_path / "given.npy", tmp_path / "sprung"
    if what in FILES:
        file.write_bytes(FILES[what])
    elif what in ARRAYS:
        np.save(file, ARRAYS[what])
    elif what == "a pickle":
        file.write_bytes(pickle.dumps(_Trap(trap)))
    elif what == "a folder":
        file.mkdir()
    else:
        values = np.empty((1, _DIM), object)
        values[...] = _Trap(trap)
        np.save(file, values, allow_pickle=True)
    code, out, err = _asked(children, archive, file)
    assert not trap.exists()
    assert not Path("/tmp/owned").exists()
    # The good ones on both sides are answered; of the other each row is said, or the file.
    assert '"prediction"' in out[0]
    assert '"prediction"' in out[-1]
    if what == "a shape without rows":
        assert (code, len(out)) == (0, 2)
        return
    assert code == 3
    assert all('"error"' in line for line in out[1:-1]), out
    assert len(err) == len(out) - 2 > 0, err
