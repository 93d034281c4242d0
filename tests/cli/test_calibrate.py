"""``archive calibrate``, and what ``query --calibrated`` and ``archive info`` make of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.writer import ArchiveWriter

JUDGED = ("calibrated_confidence", "prediction_set", "out_of_distribution", "strangeness")


@pytest.fixture
def clusters(tmp_path, helpers):
    """160 labelled rows of eight patients around two centres that overlap."""
    return two_clusters(tmp_path, helpers, 0.4)


def two_clusters(tmp_path, helpers, gap):
    bundle = helpers.build_bundle(tmp_path / "encoder")
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 160).astype(np.int32)
    features = rng.normal(size=(160, helpers.DIM)) + gap * np.where(labels, 1, -1)[:, None]
    sources = tuple(
        Source(f"s{n}.svs", f"/gone/s{n}.svs", 1, 0, f"{n}".encode().ljust(16), 0.5, f"P{n}")
        for n in range(8)
    )
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    stored = features.astype(np.float16)
    with ArchiveWriter(path) as writer:
        writer.add(
            Rows(
                features=stored,
                codes=bundle.codes(stored),
                coords=np.stack([np.arange(160), np.zeros(160, np.int64)], axis=1),
                source=(np.arange(160) % 8).astype(np.int32),
                labels=labels,
                sources=sources,
                classes=("A", "B"),
            )
        )
        writer.publish()
    return path


def _one(result):
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    return json.loads(line)


def test_it_is_said_kept_used_and_undone(patchknn, clusters):
    assert _one(patchknn("archive", "info", clusters))["calibration"] is None
    done = _one(patchknn("archive", "calibrate", clusters, "--coverage", 0.8))
    assert (done["queries"], done["patients"], done["snapshot"]) == (160, 8, 2)
    assert set(done["abstain_below"]) == {"0.9", "0.95", "0.99"}
    assert done["coverage_held_out"] == pytest.approx(0.8, abs=0.15)
    log = json.loads(patchknn("archive", "log", clusters, "--limit", 1).out)
    assert log["action"] == "calibrate"
    assert log["command"] is not None
    info = _one(patchknn("archive", "info", clusters))["calibration"]
    assert (info["method"], info["ece"]) == (done["method"], done["ece_after"])
    assert (info["stale"], info["exclude_same"], info["coverage"]) == (False, "patient", 0.8)

    plain = _one(patchknn("query", clusters, "--id", "s1.svs@1_0"))
    judged = patchknn("query", clusters, "--id", "s1.svs@1_0", "--calibrated")
    answer = _one(judged)
    assert "stale" not in judged.err
    assert answer["calibration_stale"] is False
    assert set(answer["prediction_set"]) <= {"A", "B"}
    assert 0 < answer["calibrated_confidence"] < 1
    same = _one(patchknn("query", clusters, "--id", "s1.svs@1_0", "--coverage", 0.8))
    assert same == answer
    added = {*JUDGED, "calibration_stale", "coverage"}
    assert {name: value for name, value in answer.items() if name not in added} == plain

    number = answer["calibrated_confidence"]
    for threshold, abstains in ((number + 1e-6, True), (number - 1e-6, False)):
        line = ("query", clusters, "--id", "s1.svs@1_0", "--calibrated")
        assert _one(patchknn(*line, "--abstain-below", threshold))["abstained"] is abstains

    assert patchknn("archive", "rollback", clusters, 1).code == 0
    gone = patchknn("query", clusters, "--id", "s1.svs@1_0", "--calibrated")
    assert gone.code == 1
    assert f"is not calibrated: run 'patchknn archive calibrate {clusters}'." in gone.err


def test_where_it_is_no_better_it_is_said_plainly(patchknn, tmp_path, helpers):
    """Votes that are always unanimous and right need no correction."""
    done = patchknn("archive", "calibrate", two_clusters(tmp_path, helpers, 30))
    summary = _one(done)
    assert summary["brier_after"] >= summary["brier_before"] == 0
    for name, figure in (("ECE", "ece"), ("Brier score", "brier")):
        told = f"{summary[f'{figure}_after']:.3g}, {summary[f'{figure}_before']:.3g}"
        assert f"no smaller {name} than the share of votes ({told})." in done.err


def test_a_stale_one_answers_and_is_said_to_be_once(patchknn, clusters):
    assert patchknn("archive", "calibrate", clusters).code == 0
    label = _one(patchknn("query", clusters, "--id", "s1.svs@1_0"))["label"]
    other = "A" if label == "B" else "B"
    changed = patchknn("archive", "relabel", clusters, "--id", "s1.svs@1_0", "--to", other)
    assert changed.code == 0
    ids = ("--id", "s1.svs@1_0", "--id", "s2.svs@2_0")
    found = patchknn("query", clusters, *ids, "--calibrated")
    assert found.code == 0
    assert [json.loads(line)["calibration_stale"] for line in found.out.splitlines()] == [True] * 2
    assert found.err.count("is stale: it was made of 160 rows") == 1
    assert _one(patchknn("archive", "info", clusters))["calibration"]["stale"] is True
    assert patchknn("archive", "calibrate", clusters).code == 0
    assert _one(patchknn("archive", "info", clusters))["calibration"]["stale"] is False


def test_other_settings_are_refused_with_the_remedy(patchknn, clusters):
    assert patchknn("archive", "calibrate", clusters, "--k", 5).code == 0
    found = patchknn("query", clusters, "--id", "s1.svs@1_0", "--calibrated")
    assert found.code == 1
    assert "was calibrated with --k 5, which is not asked for here" in found.err
    assert f"'patchknn archive calibrate {clusters} --k 10'" in found.err
    assert patchknn("query", clusters, "--id", "s1.svs@1_0", "--calibrated", "--k", 5).code == 0


def test_dry_run_stores_nothing(patchknn, clusters):
    done = _one(patchknn("archive", "calibrate", clusters, "--dry-run", "--sample", 60))
    assert (done["dry_run"], done["queries"], done["snapshot"]) == (True, 60, None)
    assert _one(patchknn("archive", "info", clusters))["snapshot"] == 1
    assert list((clusters / "runs").glob("*.json")) == []


def test_without_patients_slides_are_kept_apart(patchknn, archive):
    """Slides of the fixture have no patient in common with its images, which have none."""
    done = patchknn("archive", "calibrate", archive, "--exclude-same", "slide", "--k", 3)
    assert done.code == 0, done.err
    assert _one(done)["patients"] > 2
    by_patient = patchknn("archive", "calibrate", archive, "--k", 3)
    assert by_patient.code == 0, by_patient.err
    assert "queries have no answer; of the first: " in by_patient.err


def test_tables_and_tsv_have_it_too(patchknn, clusters, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    told = patchknn("archive", "calibrate", clusters, "--format", "table")
    assert told.code == 0
    assert "(taken)" in told.out
    assert "--abstain-below" in told.out
    line = ("query", clusters, "--id", "s1.svs@1_0", "--calibrated", "--format")
    table = patchknn(*line, "table").out
    assert "% calibrated" in table
    assert "95% sure: " in table
    header, first, *_ = patchknn(*line, "tsv").out.splitlines()
    row = dict(zip(header.split("\t"), first.split("\t"), strict=True))
    answer = _one(patchknn(*line, "ndjson"))
    assert row["prediction_set"].split("|") == answer["prediction_set"]
    assert float(row["calibrated_confidence"]) == answer["calibrated_confidence"]
    assert row["out_of_distribution"] == "false"


def test_evaluate_judges_it(patchknn, clusters):
    done = _one(patchknn("archive", "calibrate", clusters))
    plain = _one(patchknn("evaluate", clusters))
    found = patchknn("evaluate", clusters, "--calibrated")
    figures = _one(found)
    assert "was made of the same rows" in found.err
    assert figures["set_coverage"] >= figures["coverage"] == 0.95
    assert figures["calibrated_brier"] <= figures["brier"] == pytest.approx(done["brier_before"])
    assert set(figures) - set(plain) >= {"calibrated_ece", "mean_set_size", "out_of_distribution"}
    table = patchknn("evaluate", clusters, "--calibrated", "--format", "table")
    assert "set_coverage" in table.out


def test_own_rows_are_not_asked_for_themselves(patchknn, clusters):
    found = patchknn("archive", "calibrate", clusters, "--exclude-same", "none")
    assert found.code == 2
    assert "each of the archive's own rows would find itself" in found.err


@pytest.mark.parametrize("coverage", [0, 1, 1.5])
def test_a_promise_that_cannot_be_is_refused(patchknn, clusters, coverage):
    found = patchknn("archive", "calibrate", clusters, "--coverage", coverage)
    assert found.code == 2
    assert "is not between 0 and 1" in found.err


def test_one_patient_alone_cannot_be_judged(patchknn, clusters):
    others = [word for n in range(1, 8) for word in ("--patient", f"P{n}")]
    assert patchknn("archive", "remove", clusters, *others).code == 0
    found = patchknn("archive", "calibrate", clusters, "--exclude-same", "self")
    assert found.code == 1
    assert "all queries are of one patient" in found.err
