"""The doctor finds what is broken and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchknn.cli import doctor
from patchknn.hamming import kernels


def test_every_check_has_a_status_and_the_exit_code_follows(patchknn, tmp_path):
    result = patchknn("doctor", tmp_path, "--format", "ndjson")
    checks = [json.loads(line) for line in result.out.splitlines()]
    assert [check["check"] for check in checks] == [
        *("versions", "torch", "gpu", "torchvision and timm", "openslide", "kernels", "annoy"),
        *("cpu", f"writable {tmp_path}", "weights"),
    ]
    assert {check["status"] for check in checks} <= {"ok", "note", "fail"}
    assert result.code == int(any(check["status"] == "fail" for check in checks))


def test_a_folder_that_is_missing_fails_with_a_remedy(patchknn, tmp_path):
    result = patchknn("doctor", tmp_path / "absent", "--format", "ndjson")
    rows = [json.loads(line) for line in result.out.splitlines()]
    (row,) = [row for row in rows if row["check"].startswith("writable")]
    assert result.code == 1
    assert row["status"] == "fail"
    assert row["remedy"] == f"mkdir -p {tmp_path / 'absent'}"


def _answer(monkeypatch: pytest.MonkeyPatch, code: int, err: str) -> None:
    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], code, "", err)

    monkeypatch.setattr(subprocess, "run", run)


def test_a_torchvision_of_another_torch_is_recognised(monkeypatch):
    _answer(monkeypatch, 1, "Traceback …\nRuntimeError: operator torchvision::nms does not exist\n")
    check = doctor._timm()
    assert check.status == "fail"
    assert "another torch" in check.detail
    assert "--index-url https://download.pytorch.org/whl/cpu" in check.remedy


def test_an_annoy_built_for_another_cpu_is_recognised(monkeypatch):
    _answer(monkeypatch, -4, "")
    check = doctor._annoy()
    assert check.status == "note"
    assert "SIGILL" in check.detail
    assert "--no-binary annoy" in check.remedy


def test_a_cold_cache_offline_is_noted(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cold = doctor._weights()
    assert cold.status == "note"
    assert "patchknn weights fetch NAME DIR" in cold.remedy
    (tmp_path / "models--timm--resnet18.a1_in1k").mkdir()
    check = doctor._weights()
    assert check.status == "ok"
    assert "timm/resnet18.a1_in1k" in check.detail


def _kernels_of(variables: dict[str, str], before: str = "") -> dict[str, str]:
    program = f"""
import json, sys
{before}
from dataclasses import asdict
from patchknn.cli.doctor import _kernels
print(json.dumps(asdict(_kernels())))
"""
    kept = {key: value for key, value in os.environ.items() if key != "PATCHKNN_KERNELS"}
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**kept, **variables}
    )
    assert finished.returncode == 0, finished.stderr
    check: dict[str, str] = json.loads(finished.stdout)
    return check


def test_the_kernels_in_use_are_named():
    best = kernels.available()[-1]
    check = _kernels_of({})
    assert check["status"] == ("note" if best == "numpy" else "ok")
    assert check["detail"].startswith(best)


def test_without_the_extension_the_doctor_asks_for_a_compiler():
    check = _kernels_of({}, before='sys.modules["patchknn.hamming._kernels"] = None')
    assert check["status"] == "note"
    assert check["detail"].startswith("numpy")
    assert "C compiler" in check["remedy"]


@pytest.mark.skipif(kernels.why_not() is not None, reason="there are no others to prefer")
def test_slower_kernels_that_are_forced_are_noted():
    check = _kernels_of({"PATCHKNN_KERNELS": "numpy"})
    assert check["status"] == "note"
    assert check["detail"].startswith("numpy, which PATCHKNN_KERNELS forces")
    assert check["remedy"] == "unset PATCHKNN_KERNELS"


def test_kernels_that_are_forced_and_not_there_fail():
    check = _kernels_of({"PATCHKNN_KERNELS": "avx3"})
    assert check["status"] == "fail"
    assert "PATCHKNN_KERNELS=avx3" in check["detail"]
