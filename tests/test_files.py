"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from patchknn import files
from patchknn.errors import InputError, UsageError
from patchknn.files import (
    ErrorKeepingFile,
    check_output,
    errors_named,
    quickhash,
    read_json,
    replaced_atomically,
    size_and_time,
    temporary_beside,
    write_bytes,
    write_json,
)


def test_json_round_trips_and_replaces(tmp_path):
    file = tmp_path / "a.json"
    for value in ({"b": [1, None, "ü"], "a": 0.1}, {}):
        write_json(file, value)
        assert read_json(file) == value
    assert file.read_bytes().endswith(b"}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, {"new": float("nan")})

    def stop_halfway():
        with replaced_atomically(file) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_halfway()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync_file", full)
        with pytest.raises(OSError, match="No space"):
            write_bytes(file, b"new")
    assert read_json(file) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})
    program = f"""
import os, signal
from pathlib import Path
from patchknn.files import replaced_atomically
with replaced_atomically(Path({str(file)!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert read_json(file) == {"old": 1}
    assert all(p == file or p.name.startswith(".tmp-") for p in tmp_path.iterdir())


def test_temporary_names_differ_and_stay_beside(tmp_path):
    names = {temporary_beside(tmp_path / "x.json") for _ in range(50)}
    assert len(names) == 50
    assert {name.parent for name in names} == {tmp_path}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b"\xff{}", "is not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
        (b'"' + b"a" * 200 + b'"', "more than any such file"),
    ],
)
def test_what_is_no_json_object_is_refused_by_name(tmp_path, data, sentence):
    file = tmp_path / "a.json"
    file.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_json(file, limit=150 if sentence.startswith("more") else 1 << 20)
    assert sentence in str(error.value)
    assert str(file) in str(error.value)


def test_a_missing_file_and_a_folder_are_no_json(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is not a plain file"):
        read_json(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 65537, 200_000, 500_000])
def test_quickhash_sees_beginning_middle_end_and_size(tmp_path, size):
    file = tmp_path / "slide.svs"
    data = os.urandom(size)
    file.write_bytes(data)
    first = quickhash(file)
    assert len(first) == 16
    copy = tmp_path / "copy.svs"
    copy.write_bytes(data)
    os.utime(copy, (1, 1))
    assert quickhash(copy) == first
    changed = {first}
    for position in sorted({0, size // 2, size - 1}) if size else []:
        other = bytearray(data)
        other[position] ^= 1
        copy.write_bytes(other)
        changed.add(quickhash(copy))
    copy.write_bytes(data + b"\0")
    changed.add(quickhash(copy))
    assert len(changed) == 2 + len({0, size // 2, size - 1} if size else [])


def test_a_patient_file_holds_back_its_error(tmp_path):
    program = f"""
import resource, signal, sys
from pathlib import Path
import h5py, numpy
from patchknn.files import ErrorKeepingFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with ErrorKeepingFile(Path({str(tmp_path / "a.h5")!r})) as raw, h5py.File(raw, "w") as file:
        file["values"] = numpy.arange(100_000)
except OSError as error:
    print(error.strerror)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.stdout.strip() == os.strerror(27), finished.stderr


def test_a_patient_file_is_a_file(tmp_path):
    import h5py
    import numpy as np

    values = np.random.default_rng(0).normal(size=(500, 7))
    with ErrorKeepingFile(tmp_path / "a.h5") as raw, h5py.File(raw, "w") as file:
        file["values"] = values
        file["again"] = file["values"][...]
        file.attrs["text"] = json.dumps({"a": 1})
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["again"][...], values)
        assert file.attrs["text"] == '{"a": 1}'


def test_errors_name_what_people_know(tmp_path):
    def raised(error):
        with (
            pytest.raises(OSError, match="No s") as caught,
            errors_named(tmp_path / "x", tmp_path / ".tmp-x"),
        ):
            raise error
        return caught.value

    assert raised(OSError(28, "No space left on device")).filename == str(tmp_path / "x")
    inside = OSError(28, "No space", str(tmp_path / ".tmp-x" / "part"))
    assert raised(inside).filename == str(tmp_path / "x")
    copied = OSError(28, "No space", "/encoder", None, str(tmp_path / ".tmp-x"))
    assert raised(copied).filename == str(tmp_path / "x")
    assert raised(FileNotFoundError(2, "No such file", "/other")).filename == "/other"
    told = raised(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert (told.errno, told.filename) == (28, str(tmp_path / "x"))
    with pytest.raises(RuntimeError, match="else"), errors_named(tmp_path):
        raise RuntimeError("something else")


def test_of_an_mrxs_slide_the_folder_beside_it_counts(tmp_path):
    slide, folder = tmp_path / "s.mrxs", tmp_path / "s"
    slide.write_bytes(b"picture")
    alone = quickhash(slide), size_and_time(slide)
    assert alone == (quickhash(slide), (7, slide.stat().st_mtime_ns))
    folder.mkdir()
    for name, size in (("Slidedat.ini", 10), ("Data0000.dat", 300_000)):
        (folder / name).write_bytes(bytes(size))
        os.utime(folder / name, ns=(1, 1))
    os.utime(slide, ns=(5, 5))
    whole = quickhash(slide)
    assert whole != alone[0]
    assert size_and_time(slide) == (300_017, 5)
    data = bytearray(300_000)
    data[-1] = 1
    (folder / "Data0000.dat").write_bytes(data)
    assert quickhash(slide) != whole
    assert size_and_time(slide)[1] > 5
    other = tmp_path / "t.svs"  # of any other slide a folder of its name is none of its business
    other.write_bytes(b"picture")
    (tmp_path / "t").mkdir()
    assert quickhash(other) == alone[0]


def test_what_cannot_be_written_is_refused_before_work_is_done(tmp_path):
    def refusal(path, *suffixes):
        with pytest.raises(UsageError) as raised:
            check_output(path, "--out", suffixes)
        return str(raised.value)

    (tmp_path / "folder.csv").mkdir()
    check_output(tmp_path / "new.CSV", "--out", [".csv"])
    check_output(tmp_path / "any", "--out")
    assert refusal(tmp_path / "any", ".a", ".b", ".c").endswith("must end in .a, .b or .c.")
    wanted = f"--out {tmp_path / 'new.txt'}: its name must end in .tsv or .csv."
    assert refusal(tmp_path / "new.txt", ".tsv", ".csv") == wanted
    gone = tmp_path / "gone" / "new.csv"
    assert refusal(gone) == f"--out {gone}: there is no folder {gone.parent}; make it first."
    folder = tmp_path / "folder.csv"
    assert refusal(folder, ".csv") == f"--out {folder} is a folder: name a file."
