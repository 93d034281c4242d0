"""The C files, built to notice accesses out of bounds and undefined behaviour, under stress."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from patchknn.hamming import kernels

_ROOT = Path(__file__).resolve().parents[2]
_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The extension built with sanitizers, and the library to load before all others."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = settings["tool"]["setuptools"]["ext-modules"]
    folder = tmp_path_factory.mktemp("sanitized")
    flags = [*_FLAGS, *module["extra-compile-args"], "-O1", "-g", "-fPIC"]
    flags.append(f"-I{sysconfig.get_paths()['include']}")

    def build(source: str) -> subprocess.CompletedProcess[str]:
        made = str(folder / f"{Path(source).stem}.o")
        command = [compiler, *flags, "-c", source, "-o", made]
        return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            built = list(pool.map(build, module["sources"]))
        out = folder / "_kernels.so"
        objects = [str(made) for made in folder.glob("*.o")]
        command = [compiler, "-shared", *_FLAGS, *objects, "-o", str(out), "-lm"]
        built.append(subprocess.run(command, capture_output=True, text=True))
        library = subprocess.run(
            [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        pytest.skip("there is no C compiler")
    said = "".join(step.stderr for step in built)
    if any(word in said for word in ("fsanitize", "libasan", "libubsan")):
        pytest.skip("the compiler has no sanitizers")
    assert not any(step.returncode for step in built), said
    if not Path(library).is_absolute():
        pytest.skip("the compiler's sanitizer cannot be loaded into Python")
    return out, library


@pytest.mark.timeout(900)
def test_nothing_is_read_or_written_out_of_bounds(sanitized):
    out, library = sanitized
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        # Python itself leaks at exit; NumPy asks for sizes that cannot be had, and copes.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("stress_kernels.py")
    finished = subprocess.run(
        [sys.executable, str(script), str(out)],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**environment, "PYTHONPATH": str(_ROOT)},
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert finished.stdout.split() == ["done", *kernels.available()[1:]]
