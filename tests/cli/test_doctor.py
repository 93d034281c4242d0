"""The doctor finds what is broken and says what to do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from patchknn.cli import doctor


def test_every_check_has_a_status_and_the_exit_code_follows(patchknn, tmp_path):
    result = patchknn("doctor", tmp_path, "--format", "ndjson")
    checks = [json.loads(line) for line in result.out.splitlines()]
    assert {"versions", "torch", "gpu", "torchvision and timm", "openslide", "annoy"} <= {
        check["check"] for check in checks
    }
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
    assert doctor._weights().status == "note"
    (tmp_path / "models--timm--resnet18.a1_in1k").mkdir()
    check = doctor._weights()
    assert check.status == "ok"
    assert "timm/resnet18.a1_in1k" in check.detail
