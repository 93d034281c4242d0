"""``patchknn doctor``: does this machine have what patchknn needs, and if not, what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from patchknn.cli import console, options

# What patchknn cannot work without; training alone needs fewer.
_REQUIRED = (
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "safetensors",
    "h5py",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "tifffile",
    "Pillow",
    "scikit-image",
    "scikit-learn",
    "matplotlib",
    "jinja2",
    "duckdb",
)

_TORCH_PROBE = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus,
                  "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported()}))
"""
_TIMM_PROBE = "import timm, torchvision; print(timm.__version__, torchvision.__version__)"
_OPENSLIDE_PROBE = "import openslide; print(openslide.__library_version__)"
_ANNOY_PROBE = """
import random
from annoy import AnnoyIndex
index = AnnoyIndex(16, "euclidean")
for row in range(200):
    index.add_item(row, [random.gauss(0, 1) for _ in range(16)])
index.build(4)
assert len(index.get_nns_by_item(0, 5)) == 5
"""


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``status`` is ``ok``, ``note`` (works, but know this) or ``fail``."""

    check: str
    status: str
    detail: str
    remedy: str = ""


def doctor(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders that must be writable; default: this one and the temporary."),
    ] = None,
    format: options.Format = None,
) -> int:
    """Check this installation: versions, torch, GPU, OpenSlide, kernels, Annoy, paths, weights.

    Exits 1 where something that patchknn needs does not work, and says what to do about it.
    """
    failed = False
    rows = []
    for check in _checks(paths or [Path.cwd(), Path(tempfile.gettempdir())]):
        failed |= check.status == "fail"
        rows.append(asdict(check))
    columns = ("check", "status", "detail", "remedy")
    console.write_rows(rows, columns, console.output_format(format))
    return 1 if failed else 0


def _checks(paths: list[Path]) -> Iterator[Check]:
    yield _versions()
    yield from _torch()
    yield _timm()
    yield _probe("openslide", _OPENSLIDE_PROBE, "pip install --force-reinstall openslide-bin")
    yield _kernels()
    yield _annoy()
    yield _threads()
    for path in paths:
        yield _writable(path)
    yield _weights()


def _versions() -> Check:
    found, missing = [], []
    for name in _REQUIRED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    python = f"Python {sys.version.split()[0]}"
    detail = ", ".join([python, f"patchknn {metadata.version('patchknn')}", *found])
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        return Check("versions", "fail", f"missing: {', '.join(missing)}; {detail}", remedy)
    return Check("versions", "ok", detail)


def _torch() -> Iterator[Check]:
    code, out, err = _run_python(_TORCH_PROBE)
    if code != 0:
        remedy = "reinstall torch and torchvision together, from the same index"
        yield Check("torch", "fail", _last_line(err) or _signal_name(code), remedy)
        return
    facts: dict[str, Any] = json.loads(out)
    yield Check("torch", "ok", f"{facts['torch']} (CUDA build {facts['cuda'] or 'none'})")
    if facts["gpus"]:
        detail = ", ".join(facts["gpus"]) + ("; bfloat16" if facts["bf16"] else "; no bfloat16")
        yield Check("gpu", "ok", detail)
    elif facts["cuda"] and Path("/proc/driver/nvidia").exists():
        remedy = "install the torch build for this driver (see pytorch.org), or update the driver"
        yield Check("gpu", "note", "an NVIDIA driver is there, but torch sees no GPU", remedy)
    else:
        yield Check("gpu", "note", "none: everything runs on the CPU, training slowly")


def _timm() -> Check:
    code, out, err = _run_python(_TIMM_PROBE)
    if code == 0:
        timm, torchvision = out.split()
        return Check("torchvision and timm", "ok", f"timm {timm}, torchvision {torchvision}")
    if "torchvision::nms does not exist" in err:
        detail = (
            "this torchvision was built for another torch (operator torchvision::nms does not "
            "exist), so timm cannot be imported"
        )
        remedy = (
            "install both from one index, for a CPU: pip install --force-reinstall torch "
            "torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
        return Check("torchvision and timm", "fail", detail, remedy)
    remedy = "pip install --force-reinstall timm torchvision"
    return Check("torchvision and timm", "fail", _last_line(err) or _signal_name(code), remedy)


def _kernels() -> Check:
    from patchknn.errors import UsageError
    from patchknn.hamming import kernels

    try:
        chosen, available = kernels.chosen(), kernels.available()
    except UsageError as error:
        return Check("kernels", "fail", str(error), "unset PATCHKNN_KERNELS")
    missing = kernels.why_not()
    if missing is not None:
        detail = f"numpy, which finds the same and takes longer. {missing}"
        remedy = "install a C compiler (gcc or clang) and install patchknn again"
        return Check("kernels", "note", detail, remedy)
    if chosen != available[-1]:
        detail = f"{chosen}, which PATCHKNN_KERNELS forces; {available[-1]} would be faster"
        return Check("kernels", "note", detail, "unset PATCHKNN_KERNELS")
    return Check("kernels", "ok", f"{chosen}, the fastest of {', '.join(available)}")


def _annoy() -> Check:
    code, _, err = _run_python(_ANNOY_PROBE)
    if code == 0:
        return Check("annoy", "ok", "builds and searches an index here")
    if "No module named" in err:
        remedy = "pip install annoy, or do not use --coarse annoy"
        return Check("annoy", "note", "not installed; only --coarse annoy needs it", remedy)
    # Annoy compiles for the machine it is built on; elsewhere it may die of an illegal instruction.
    detail = f"crashes on this machine ({_signal_name(code) or _last_line(err)})"
    remedy = "pip install --force-reinstall --no-cache-dir --no-binary annoy annoy on this node"
    return Check("annoy", "note", detail + "; only --coarse annoy needs it", remedy)


def _probe(name: str, program: str, remedy: str) -> Check:
    code, out, err = _run_python(program)
    if code == 0:
        return Check(name, "ok", out.strip())
    return Check(name, "fail", _last_line(err) or _signal_name(code), remedy)


def _threads() -> Check:
    from patchknn.jobs.cpus import available_cpus

    allowed, present = available_cpus(), os.cpu_count() or 1
    detail = f"{allowed} of {present} CPUs may be used"
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    if policy.upper() == "ACTIVE":
        remedy = "unset OMP_WAIT_POLICY: spinning threads slow every process on a shared node"
        return Check("cpu", "note", f"{detail}; OMP_WAIT_POLICY is {policy}", remedy)
    return Check("cpu", "ok", detail)


def _writable(path: Path) -> Check:
    name = f"writable {path}"
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".patchknn-") as file:
            linked = Path(f"{file.name}.link")
            os.link(file.name, linked)  # publishing a manifest needs hard links
            linked.unlink()
    except FileNotFoundError:
        return Check(name, "fail", "does not exist", f"mkdir -p {path}")
    except OSError as error:
        remedy = "choose a folder that you may write and whose file system has hard links"
        return Check(name, "fail", error.strerror or str(error), remedy)
    return Check(name, "ok", "files and hard links can be made")


def _weights() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in {"", "0"}
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    models = sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in (cache.glob("models--*") if cache.is_dir() else ())
    )
    held = f"{len(models)} cached in {cache}" + (f": {', '.join(models[:5])}" if models else "")
    if offline and not models:
        remedy = (
            "run 'patchknn weights fetch NAME DIR' on a node with internet; give --weights FILE"
        )
        return Check("weights", "note", f"HF_HUB_OFFLINE is set and {held}", remedy)
    where = "HF_HUB_OFFLINE is set" if offline else "downloads allowed (HF_HUB_OFFLINE is not set)"
    return Check("weights", "ok", f"{where}; {held}")


def _run_python(program: str) -> tuple[int, str, str]:
    """Run a probe in a process of its own: what crashes there does not crash here."""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    return finished.returncode, finished.stdout, finished.stderr


def _signal_name(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return ""


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
