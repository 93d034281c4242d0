"""``slide search`` from its command line to its exit code."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score

from patchknn.archive.create import create_archive
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder

_HELPERS = Path(__file__).parents[1] / "wholeslide" / "mosaics" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("wholeslide_helpers", _HELPERS)
cohorts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cohorts)

SLIDES = [*cohorts.cohort(9), ("lost.svs", None, None), ("alone.svs", "PX", "benign")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Nine patients of two slides, one slide without a patient or label, one alone."""
    root = tmp_path_factory.mktemp("slides")
    bundle = cohorts.build_bundle(root / "encoder")
    path = root / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    with ArchiveWriter(path, format="hdf5") as writer:
        writer.add(cohorts.slide_rows(bundle, SLIDES))
        writer.publish()
    return path


def _json(result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


def test_an_archived_slide_asks_all_but_its_patient(patchknn, archive):
    result = patchknn("slide", "search", archive, "--slide", "p4s1.svs", "--format", "ndjson")
    assert (result.code, result.err) == (0, "")
    (answer,) = _json(result)
    assert (answer["query"], answer["label"], answer["patient"]) == ("p4s1.svs", "benign", "P4")
    assert (answer["patches"], answer["mosaic"]) == (40, 9)
    assert list(answer["majority"]) == ["1", "3", "5"]
    assert answer["prediction"] == answer["majority"]["5"]["prediction"]
    assert len(answer["neighbours"]) == 5
    assert all(one["patient"] != "P4" for one in answer["neighbours"])
    distances = [one["distance"] for one in answer["neighbours"]]
    assert distances == sorted(distances)
    stored = open_archive(archive)
    for one in answer["neighbours"]:
        assert len(one["matches"]) == 3
        for match in one["matches"]:
            rows = [stored.row(stored.locate(match[key])) for key in ("query", "id")]
            codes = [np.frombuffer(row.code, np.uint8) for row in rows]
            assert np.bitwise_count(codes[0] ^ codes[1]).sum() == match["distance"]


def test_without_names_all_ask(patchknn, archive):
    answers = _json(patchknn("slide", "search", archive, "--by", "l2", "--matches", 0))
    assert [answer["query"] for answer in answers] == sorted(name for name, _, _ in SLIDES)
    true = {name: label for name, _, label in SLIDES}
    known = [answer for answer in answers if answer["label"] is not None]
    assert all(answer["label"] == true[answer["query"]] for answer in answers)
    right = [answer["prediction"] == answer["label"] for answer in known]
    assert np.mean(right) > 0.7


def test_what_fails_is_said_and_the_rest_is_done(patchknn, archive):
    result = patchknn(
        *("slide", "search", archive, "--slide", "p4s1.svx", "--slide", "p0s0.svs"),
        *("--format", "tsv", "--k", 2),
    )
    assert result.code == 3
    assert f"'p4s1.svx' is no slide of {archive}; did you mean 'p4s1.svs'?" in result.err
    rows = list(csv.DictReader(io.StringIO(result.out), delimiter="\t"))
    assert [(row["query"], row["rank"]) for row in rows] == [("p0s0.svs", "1"), ("p0s0.svs", "2")]
    assert patchknn("slide", "search", archive, "--slide", "none").code == 1


def test_an_unknown_patient_is_warned_of(patchknn, archive):
    result = patchknn("slide", "search", archive, "--slide", "lost.svs")
    assert "the patient of lost.svs is not known" in result.err
    assert "lost.svs" not in {one["slide"] for one in _json(result)[0]["neighbours"]}
    result = patchknn("slide", "search", archive, "--slide", "lost.svs", "--exclude-same", "slide")
    assert result.err == ""


def test_a_table_shows_votes_slides_and_the_patches_that_match(patchknn, archive):
    result = patchknn("slide", "search", archive, "--slide", "p4s1.svs", "--format", "table")
    assert "p4s1.svs   labelled benign   9 of 40 patches" in result.out
    assert "top 1: " in result.out
    assert " ~ " in result.out


@pytest.mark.parametrize("by", ["hamming", "l2"])
def test_evaluate_is_what_scikit_learn_makes_of_the_answers(patchknn, archive, by):
    answers = [
        answer
        for answer in _json(patchknn("slide", "search", archive, "--by", by))
        if answer["label"] is not None
    ]
    result = patchknn("slide", "search", archive, "--by", by, "--evaluate", "--format", "ndjson")
    assert result.code == 0
    (found,) = _json(result)
    true = [answer["label"] for answer in answers]
    classes = sorted(set(true))
    assert (found["n"], found["patients"], found["left_out"]) == (19, 10, 1)
    assert found["classes"] == classes
    for k in (1, 3, 5):
        votes = [answer["majority"][str(k)]["prediction"] for answer in answers]
        predicted = [vote or "nothing" for vote in votes]
        assert found[f"mmv_at_{k}"] == pytest.approx(accuracy_score(true, predicted))
        macro = f1_score(true, predicted, labels=classes, average="macro", zero_division=0)
        assert found[f"macro_f1_at_{k}"] == pytest.approx(macro)
        recalls = recall_score(true, predicted, labels=classes, average=None, zero_division=0)
        assert [row[f"recall_at_{k}"] for row in found["per_class"]] == pytest.approx(list(recalls))
        low, high = found["intervals"][f"mmv_at_{k}"]
        assert low <= found[f"mmv_at_{k}"] <= high


def test_evaluate_as_a_table_and_as_tsv(patchknn, archive, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    table = patchknn("slide", "search", archive, "--evaluate", "--format", "table").out
    assert "19 slides, each without its patient" in table
    assert "recall_at_3" in table
    tsv = patchknn("slide", "search", archive, "--evaluate", "--format", "tsv", "--k", 2).out
    rows = list(csv.DictReader(io.StringIO(tsv), delimiter="\t"))
    assert [row["k"] for row in rows] == ["1", "2"]


def test_labels_from_a_table_and_from_records(patchknn, archive, tmp_path):
    patients = sorted({patient for _, patient, _ in SLIDES if patient})
    organ = {patient: f"organ{number % 2}" for number, patient in enumerate(patients)}
    table = tmp_path / "organs.csv"
    table.write_text("".join(["patient,label\n", *(f"{p},{o}\n" for p, o in organ.items())]))
    result = patchknn("slide", "search", archive, "--labels", table, "--slide", "p4s1.svs")
    assert f"archived slides that {table} gives no label: 1" in result.err
    (by_table,) = _json(result)
    assert by_table["label"] == organ["P4"]
    assert all(
        one["label"] == organ[one["patient"]] for one in by_table["neighbours"] if one["patient"]
    )
    table.write_text(table.read_text().replace("label", "organ"))
    assert patchknn("archive", "records", "attach", archive, table, "--key", "patient").code == 0
    result = patchknn("slide", "search", archive, "--label-field", "Organ", "--slide", "p4s1.svs")
    assert _json(result) == [by_table]
    result = patchknn("slide", "search", archive, "--label-field", "organs")
    assert result.code == 2
    assert "--label-field: there is no field 'organs'; perhaps 'organ' is meant" in result.err


def test_records_say_which_slides_may_answer_and_stand_beside_them(
    patchknn, archive, tmp_path, monkeypatch
):
    path = shutil.copytree(archive, tmp_path / "archive")
    patients = sorted({patient for _, patient, _ in SLIDES if patient})
    table = tmp_path / "sites.csv"
    lines = [f"{p},{n % 2},{'true' if n % 3 else 'false'}\n" for n, p in enumerate(patients)]
    table.write_text("".join(["patient,site,frozen\n", *lines]))
    assert patchknn("archive", "records", "attach", path, table, "--key", "patient").code == 0
    line = ("slide", "search", path, "--slide", "p4s1.svs", "--k", 20)
    (every,) = _json(patchknn(*line))
    where = ("--where", "site = 1 AND frozen", "--fields", "frozen,site")
    (some,) = _json(patchknn(*line, *where))
    facts = {p: {"frozen": bool(n % 3), "site": n % 2} for n, p in enumerate(patients)}
    expected = [
        one | {"fields": facts[one["patient"]]}
        for one in every["neighbours"]
        if one["patient"] and facts[one["patient"]] == {"frozen": True, "site": 1}
    ]
    assert some["neighbours"] == expected
    assert 0 < len(expected) < len(every["neighbours"])
    tsv = patchknn(*line, *where, "--format", "tsv").out
    rows = list(csv.DictReader(io.StringIO(tsv), delimiter="\t"))
    assert {(row["frozen"], row["site"]) for row in rows} == {("true", "1")}
    monkeypatch.setenv("COLUMNS", "140")
    header = patchknn(*line, *where, "--format", "table").out.splitlines()[2].split()
    assert header[:7] == ["#", "slide", "label", "bits", "patient", "frozen", "site"]
    judged = _json(patchknn("slide", "search", path, "--evaluate", "--where", "site = 1"))[0]
    asked = [patient for _, patient, label in SLIDES if label and facts[patient]["site"] == 1]
    assert judged["n"] == len(asked)
    nothing = patchknn(*line, "--where", "site = 7")
    assert (nothing.code, nothing.out) == (1, "")
    assert "--where 'site = 7' is true of no slide of" in nothing.err


def test_a_table_of_other_names_is_an_error(patchknn, archive, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("slide,label\np0s0,X\n")
    result = patchknn("slide", "search", archive, "--labels", table)
    assert result.code == 1
    assert f"{table} names no slide of {archive}: it has p0s0, the archive alone.svs" in result.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--evaluate", "--slide", "a"], "leave SLIDES and --slide away"),
        (["--labels", "a.csv", "--label-field", "b"], "give one"),
        (["-", "--slide", "-"], "stdin ('-') can be read only once"),
        (["--evaluate", "--fields", "a"], "which --evaluate does not show"),
        (["--mosaic", "0.05"], "give a share of a slide's patches, as 5%"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(patchknn, archive, arguments, problem):
    result = patchknn("slide", "search", archive, *arguments)
    assert result.code == 2
    assert problem in result.err


def test_plain_images_are_no_slides(patchknn, tmp_path, helpers):
    bundle = helpers.build_bundle(tmp_path / "encoder")
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    with ArchiveWriter(path) as writer:
        writer.add(helpers.build_rows(bundle, slides=()))
        writer.publish()
    result = patchknn("slide", "search", path)
    assert result.code == 1
    assert "holds plain images alone, and no slide: 'patchknn query' compares those" in result.err
    with ArchiveWriter(path) as writer:
        writer.add(helpers.build_rows(bundle, images=(), seed=1))
        writer.publish()
    answers = _json(patchknn("slide", "search", path))
    assert [answer["query"] for answer in answers] == ["s1.svs", "s2.svs"]


def test_nothing_to_judge_is_an_error(patchknn, tmp_path):
    bundle = cohorts.build_bundle(tmp_path / "encoder")
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    result = patchknn("slide", "search", path)
    assert result.code == 1
    assert "holds no slide" in result.err
    with ArchiveWriter(path) as writer:
        writer.add(cohorts.slide_rows(bundle, [("a", None, None), ("b", None, None)]))
        writer.publish()
    assert "has no slide with a label" in patchknn("slide", "search", path, "--evaluate").err
    with ArchiveWriter(path) as writer:
        writer.add(cohorts.slide_rows(bundle, [("c", None, "adeno"), ("d", None, "adeno")]))
        writer.publish()
    result = patchknn("slide", "search", path, "--evaluate")
    assert "names no patient, so a slide's own patient cannot be left out" in result.err
    assert patchknn("slide", "search", path, "--evaluate", "--exclude-same", "slide").code == 0


COLOURS = {"A": ((230, 110, 170), (110, 50, 140)), "B": ((200, 190, 120), (90, 150, 90))}


def _write_slide(path: Path, label: str, seed: int) -> Path:
    """Two tissues in stripes that the class decides; 0.5 µm/px."""
    noise = np.random.default_rng(seed).normal(0, 12, (192, 256, 3))
    stripes = (np.arange(256) // 32 % 2)[None, :, None]
    first, second = np.array(COLOURS[label])
    pixels = np.clip(np.where(stripes, first, second) + noise, 0, 255).astype(np.uint8)
    tags = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", **tags)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """``archive`` of six real slides, two classes and three patients each."""
    from patchknn.cli.main import run

    root = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet", input_size=32)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, 16, (2,))
    facts: dict[str, Any] = {"training": {}, "metrics": {}, "hash_method": "learned"}
    tasks = {"label": tuple(COLOURS)}
    save_encoder(root / "encoder", network, backbone, input_size=32, bits=16, tasks=tasks, **facts)
    lines = ["path,label,patient"]
    for number in range(6):
        label = "AB"[number % 2]
        _write_slide(root / f"{number}.tif", label, number)
        lines.append(f"{number}.tif,{label},P{number}")
    (root / "slides.csv").write_text("\n".join(lines))
    tiles = ["tile", root / "slides.csv", "-o", root / "tiles", "--size", 32, "--workers", 0]
    assert run([*map(str, tiles)]) == 0
    embed = ["embed", root / "tiles", "--encoder", root / "encoder", "--workers", 0]
    assert run([*map(str, embed), "--archive", str(root / "archive")]) == 0
    return root


def test_files_are_tiled_and_embedded_as_the_archive_was(patchknn, world):
    new = _write_slide(world / "new.tif", "B", 99)
    result = patchknn(
        *("slide", "search", world / "archive", new, world / "gone.tif", "--patient", "P1"),
        *("--k", 2, "--workers", 0, "--by", "l2"),
    )
    assert result.code == 3
    answer, failed = _json(result)
    assert failed["query"] == str(world / "gone.tif")
    assert answer["query"] == str(new)
    assert (answer["prediction"], answer["patient"], answer["patches"]) == ("B", "P1", 48)
    assert {one["slide"] for one in answer["neighbours"]} == {"3.tif", "5.tif"}  # 1.tif is P1's


def test_a_copy_of_an_archived_slide_does_not_find_itself(patchknn, world):
    copy = world / "copy.tif"
    copy.write_bytes((world / "3.tif").read_bytes())
    base = ("slide", "search", world / "archive", copy, "--workers", 0, "--k", 9, "--by", "l2")
    result = patchknn(*base)
    (answer,) = _json(result)
    assert "3.tif" not in {one["slide"] for one in answer["neighbours"]}
    assert "is not known" not in result.err  # it is P3's, as the archive knows
    (answer,) = _json(patchknn(*base, "--exclude-same", "none"))
    assert (answer["neighbours"][0]["slide"], answer["neighbours"][0]["distance"]) == ("3.tif", 0)


def test_a_slide_without_tissue_is_said(patchknn, world, tmp_path):
    glass = world / "glass.tif"
    tags = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        glass, np.full((192, 256, 3), 244, np.uint8), tile=(128, 128), photometric="rgb", **tags
    )
    result = patchknn("slide", "search", world / "archive", glass, "--workers", 0)
    assert result.code == 1
    assert f"{glass} holds no tissue" in result.err
    folder = tmp_path / "two"
    folder.mkdir()
    shutil.copy(glass, folder)
    shutil.copy(world / "3.tif", folder)
    result = patchknn("slide", "search", world / "archive", folder, "--workers", 0)
    assert result.code == 3
    answer, failed = _json(result)
    assert answer["query"] == str(folder / "3.tif")
    assert failed["query"] == "glass.tif"
    assert "glass.tif holds no tissue" in result.err
