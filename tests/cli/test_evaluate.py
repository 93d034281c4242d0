"""The command on real pictures, a real (untrained) network and a real archive."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]
CLASSES = {"STR": (225, 130, 175), "LYM": (80, 70, 150)}


def write_picture(path: Path, label: str, seed: int) -> None:
    from PIL import Image

    noise = np.random.default_rng(seed).normal(0, 15, (32, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + CLASSES[label], 0, 255).astype(np.uint8)).save(path)


def write_manifest(folder: Path, patients: tuple[str, ...], name: str, first: int) -> Path:
    rows = []
    for patient in patients:
        for number in range(6):
            label = ("STR", "LYM")[number % 2]
            path = folder / name / f"{patient}-{number}.png"
            write_picture(path, label, first + len(rows))
            split = "test" if number < 4 else "other"
            rows.append([f"{name}/{path.name}", label, patient, split])
    manifest = folder / f"{name}.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient", "split"], *rows])
    return manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``archive`` of two patients, ``ask.csv`` of one of them and of a third."""
    from patchknn.archive.create import create_archive
    from patchknn.archive.rows import Rows, Source
    from patchknn.archive.writer import ArchiveWriter
    from patchknn.bundle import load_bundle
    from patchknn.datasets.listing import iter_patches
    from patchknn.encoder.backbones import create_backbone
    from patchknn.encoder.devices import choose_device
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.encoder.network import EncoderNetwork
    from patchknn.encoder.saving import save_encoder
    from patchknn.files import quickhash
    from patchknn.indexing.features import embed_patches

    folder = tmp_path_factory.mktemp("evaluate")
    backbone = create_backbone("test_resnet", input_size=32)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, 16, (2,))
    facts: dict[str, Any] = {"training": {}, "metrics": {}, "hash_method": "learned"}
    save_encoder(
        folder / "encoder",
        network,
        backbone,
        input_size=32,
        bits=16,
        tasks={"label": CLASSES},
        **facts,
    )
    bundle = load_bundle(folder / "encoder")
    create_archive(folder / "archive", bundle, patch_px=32, mpp=None)
    manifest = write_manifest(folder, ("P1", "P2"), "stored", 0)
    extractor = FeatureExtractor.from_bundle(bundle, choose_device("cpu"))
    items = iter_patches([str(manifest)], size=32, mpp=None)
    embedded = list(embed_patches(items, extractor, size=32, mpp=None))
    features = np.stack([one.feature for one in embedded]).astype(np.float16)
    sources = []
    for one in embedded:
        status = one.patch.path.stat()
        sources.append(
            Source(
                name=one.patch.source,
                path=str(one.patch.path.absolute()),
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                quickhash=quickhash(one.patch.path),
                patient=one.patch.patient,
            )
        )
    with ArchiveWriter(folder / "archive") as writer:
        writer.add(
            Rows(
                features=features,
                codes=bundle.codes(features),
                coords=np.full((len(features), 2), -1, np.int64),
                source=np.arange(len(features), dtype=np.int32),
                labels=np.array(
                    [list(CLASSES).index(one.patch.label) for one in embedded], np.int32
                ),
                sources=tuple(sources),
                classes=tuple(CLASSES),
            )
        )
        writer.publish()
    write_manifest(folder, ("P2", "P3"), "ask", 100)
    return folder


def test_one_object_per_method(patchknn: Run, place: Path) -> None:
    line = ("evaluate", place / "archive", place / "ask.csv", "--k", 4, "--device", "cpu")
    result = patchknn(*line, "--baseline", "mean-colour")
    assert result.code == 0, result.err
    ours, baseline = (json.loads(text) for text in result.out.splitlines())
    assert (ours["method"], baseline["method"]) == ("patchknn", "mean-colour")
    assert ours["n"] == baseline["n"] == 12
    assert ours["classes"] == ["LYM", "STR"]
    # Two flat colours are what a mean colour can tell apart; the network is untrained.
    assert baseline["accuracy"] == 1.0
    assert baseline["l2_precision_at_k"] is None
    assert ours["settings"]["exclude_same"] == "patient"
    assert 0 <= ours["classifier_accuracy"] <= 1
    assert sum(entry["n"] for entry in ours["per_class"]) == 12


def test_all_baselines_beside_it(patchknn: Run, place: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    line = ("evaluate", place / "archive", place / "ask.csv", "--k", 4, "--device", "cpu")
    result = patchknn(*line, "--baseline", "all", "--frozen-weights", tmp_path / "w.safetensors")
    assert result.code == 0, result.err
    methods = {one["method"]: one for one in map(json.loads, result.out.splitlines())}
    assert list(methods) == ["patchknn", "mean-colour", "colour-histogram", "frozen"]
    assert {one["n"] for one in methods.values()} == {12}
    assert methods["colour-histogram"]["accuracy"] == 1.0
    assert methods["frozen"]["settings"]["backbone"] == "test_resnet"


def test_frozen_without_weights_is_missing_in_one_sentence(patchknn: Run, place: Path) -> None:
    line = ("evaluate", place / "archive", place / "ask.csv", "--device", "cpu")
    result = patchknn(*line, "--baseline", "frozen", "--baseline", "mean-colour")
    assert result.code == 0
    methods = [json.loads(text)["method"] for text in result.out.splitlines()]
    assert methods == ["patchknn", "mean-colour"]
    assert "frozen is missing: no pretrained weights of test_resnet can be had here" in result.err


def test_people_see_all_baselines_by_default(
    patchknn: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen features too, where weights are at hand; scripts get what they ask for."""
    import timm
    from safetensors.torch import save_file

    from patchknn.cli import evaluate_baselines

    monkeypatch.setenv("COLUMNS", "160")
    line = ("evaluate", place / "archive", place / "ask.csv", "--device", "cpu", "--bootstrap", 0)
    cold = patchknn(*line, "--format", "table")
    assert "frozen" not in cold.out
    assert "weights of test_resnet were not downloaded yet: --baseline all does it" in cold.err
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    every = ["figure", "patchknn", "mean-colour", "colour-histogram", "frozen"]
    warm = patchknn(*line, "--frozen-weights", weights, "--format", "table")
    assert every in [text.split() for text in warm.out.splitlines()]
    page = ("--format", "ndjson", "--frozen-weights", weights, "--report", tmp_path / "report")
    told = patchknn(*line, *page)
    assert [json.loads(text)["method"] for text in told.out.splitlines()] == every[1:]
    assert len(patchknn(*line, "--format", "ndjson").out.splitlines()) == 1
    monkeypatch.setattr(evaluate_baselines, "_MOST_CPU_PIXELS", 24 * 32 * 32 - 1)
    slow = patchknn(*line, "--frozen-weights", weights, "--format", "table")
    assert every[:-1] in [text.split() for text in slow.out.splitlines()]
    assert "frozen would take 24 pictures through test_resnet on a CPU" in slow.err


def test_rows_of_the_archive_by_their_own_colours(patchknn: Run, place: Path) -> None:
    result = patchknn("evaluate", place / "archive", "--k", 4, "--format", "table")
    assert ["figure", "patchknn", "mean-colour", "colour-histogram"] in [
        text.split() for text in result.out.splitlines()
    ]
    alone = patchknn("evaluate", place / "archive", "--format", "table", "--baseline", "none")
    assert "mean-colour" not in alone.out
    piped = patchknn("evaluate", place / "archive", "--baseline", "colour-histogram")
    ours, baseline = map(json.loads, piped.out.splitlines())
    assert (ours["n"], baseline["n"]) == (12, 12)
    assert baseline["accuracy"] == 1.0


def test_many_pictures_are_read_on_request_only(
    patchknn: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchknn.cli import evaluate_baselines

    monkeypatch.setattr(evaluate_baselines, "MOST_PICTURES", 23)
    line = ("evaluate", place / "archive", place / "ask.csv", "--format", "table")
    result = patchknn(*line)
    assert "mean-colour" not in result.out
    assert "would read 24 pictures: ask for them by --baseline all, or by name." in result.err
    asked = patchknn(*line, "--baseline", "mean-colour")
    assert "mean-colour" in asked.out


def test_pictures_that_are_gone_are_said_once(patchknn: Run, place: Path, tmp_path: Path) -> None:
    from shutil import copytree

    for name in ("archive", "ask"):
        copytree(place / name, tmp_path / name)
    (tmp_path / "ask.csv").write_text((place / "ask.csv").read_text())
    (place / "stored").rename(tmp_path / "moved")
    try:
        line = ("evaluate", tmp_path / "archive", tmp_path / "ask.csv", "--format", "table")
        result = patchknn(*line)
        moved = patchknn(*line, "--slides", tmp_path / "moved")
    finally:
        (tmp_path / "moved").rename(place / "stored")
    assert result.code == 0
    assert "mean-colour" not in result.out
    (said,) = [text for text in result.err.splitlines() if "mean-colour" in text]
    assert "left out: none of the pictures of" in said
    assert "mean-colour" in moved.out


def test_split_picks_rows_of_the_manifest(patchknn: Run, place: Path) -> None:
    result = patchknn("evaluate", place / "archive", place / "ask.csv", "--split", "test")
    assert json.loads(result.out)["n"] == 8


def test_a_table_shows_the_methods_side_by_side(patchknn: Run, place: Path) -> None:
    line = ("evaluate", place / "archive", place / "ask.csv", "--format", "table")
    result = patchknn(*line, "--baseline", "mean-colour", "--bootstrap", 0)
    lines = [text.split() for text in result.out.splitlines()]
    assert ["figure", "patchknn", "mean-colour"] in lines
    assert any(cells[:1] == ["accuracy"] and len(cells) == 3 for cells in lines)
    assert "Recall by class" in result.out
    assert "Accuracy against confidence, mean-colour" in result.out


def test_intervals_are_by_patient_and_few_patients_are_said(patchknn: Run, place: Path) -> None:
    line = ("evaluate", place / "archive", place / "ask.csv", "--baseline", "mean-colour")
    result = patchknn(*line, "--seed", 3)
    ours, baseline = (json.loads(text) for text in result.out.splitlines())
    for name, (low, high) in ours["intervals"].items():
        assert low <= ours[name] <= high, name
    assert ours["patients"] == 2
    assert ours["paired"] is None
    assert baseline["paired"]["against"] == "patchknn"
    assert baseline["paired"]["difference"] == pytest.approx(
        baseline["accuracy"] - ours["accuracy"]
    )
    assert "intervals over 2 patients are too narrow" in result.err
    assert patchknn(*line, "--seed", 3).out == result.out

    without = patchknn(*line, "--bootstrap", 0)
    assert json.loads(without.out.splitlines()[0])["intervals"] == {}
    assert "patients" not in without.err

    low, high = ours["intervals"]["accuracy"]
    more = ("--sweep", "k=1", "--by", "patient")
    shown = patchknn(*line, *more, "--format", "table", "--seed", 3).out
    for title in ("Against patchknn, by patient", "Swept, all else as it is", "By field"):
        assert title in shown
    assert f"{ours['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in shown


def test_the_rows_of_the_archive_ask_where_no_data_are_given(patchknn: Run, place: Path) -> None:
    for level in ("self", "slide", "patient"):
        result = patchknn("evaluate", place / "archive", "--exclude-same", level, "--k", 3)
        assert result.code == 0, result.err
        report = json.loads(result.out)
        assert (report["n"], report["patients"]) == (12, 2)
    # What else is compared asks itself, and is paired by the names of the rows.
    result = patchknn("evaluate", place / "archive", "--compare", place / "archive", "--k", 3)
    first, second = (json.loads(text) for text in result.out.splitlines())
    assert second["accuracy"] == first["accuracy"] == report["accuracy"]
    assert second["paired"]["n"] == 12


def test_an_archive_that_asks_itself_does_not_wait_for_torch(place: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "patchknn", "evaluate"]
    more = ["--baseline", "none", "--diagnose", "--format", "table"]
    done = subprocess.run([*line, place / "archive", *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {text.rpartition("|")[2].strip() for text in done.stderr.splitlines()}
    assert "patchknn.evaluation.evaluate" in imported
    assert not imported & {"torch", "timm", "torchvision"}


def test_methods_archives_and_sweeps_in_one_call(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    """Each of them is what it is alone."""
    line = ("evaluate", place / "archive", place / "ask.csv", "--bootstrap", 50)
    alone = {
        name: json.loads(patchknn(*line, *more).out)
        for name, more in {
            "patchknn": [],
            "coarse-l2": ["--coarse", "l2"],
            "k=3": ["--k", 3],
            "radius=4": ["--radius", 4],
        }.items()
    }
    answers, tables = tmp_path / "answers.ndjson", tmp_path / "tables"
    result = patchknn(
        *(*line, "--method", "patchknn", "--method", "l2", "--compare", place / "archive"),
        *("--sweep", "k=3,10", "--sweep", "radius=4", "--sweep", "bits=8,16"),
        *("--by", "patient", "--answers", answers, "--csv", tables),
    )
    assert result.code == 0, result.err
    ours, coarse, other = (json.loads(text) for text in result.out.splitlines())
    names = ["patchknn", "coarse-l2", f"patchknn on {place / 'archive'}"]
    assert [one["method"] for one in (ours, coarse, other)] == names
    for name in ("accuracy", "precision_at_k", "mean_ball", "per_class"):
        assert ours[name] == other[name] == alone["patchknn"][name]
        assert coarse[name] == alone["coarse-l2"][name]
    assert other["paired"]["n"] == 12
    assert other["paired"]["difference"] == 0.0
    sweeps = {f"{row['sweep']}={row['value']}": row for row in ours["sweeps"]}
    assert list(sweeps) == ["k=3", "k=10", "radius=4", "bits=8", "bits=16"]
    for name, row in sweeps.items():
        whole = alone.get(name, alone["patchknn"])  # 10 neighbours and 16 bits are all there is
        if name != "bits=8":
            assert row["accuracy"] == whole["accuracy"], name
            assert row["mean_ball"] == whole["mean_ball"], name
    assert "sweeps" not in coarse
    assert [(row["value"], row["method"], row["n"]) for row in ours["by_field"]] == [
        (patient, name, 6) for patient in ("P2", "P3") for name in names
    ]

    lines = [json.loads(text) for text in answers.read_text().splitlines()]
    assert [one["method"] for one in lines] == [*names[:2] * 12, *[names[2]] * 12]
    assert len({one["query"] for one in lines}) == 12
    right = [one["prediction"] == one["label"] for one in lines if one["method"] == "patchknn"]
    assert sum(right) / 12 == pytest.approx(ours["accuracy"])
    assert {path.name for path in tables.iterdir()} == {
        *("figures.csv", "paired.csv", "per_class.csv", "confusion.csv", "risk_coverage.csv"),
        *("neighbour_histogram.csv", "confidence_bins.csv", "sweeps.csv", "by_field.csv"),
        *("abstention.csv", "confidence_batches.csv"),
    }


def test_answers_are_those_of_query(patchknn: Run, place: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png", "STR", 1)
    (tmp_path / "bad.png").write_text("not a picture")
    (tmp_path / "some.csv").write_text("path,label,patient\ngood.png,STR,P9\nbad.png,STR,P9\n")
    answers = tmp_path / "answers.ndjson"
    line = ("evaluate", place / "archive", tmp_path / "some.csv", "--answers", answers)
    assert patchknn(*line).code == 3
    asked = patchknn("query", place / "archive", tmp_path / "good.png", "--patient", "P9")
    expected = json.loads(asked.out) | {"query": "good.png", "label": "STR"}
    written = [json.loads(text) for text in answers.read_text().splitlines()]
    assert [one for one in written if "error" not in one] == [expected]
    assert [one["query"] for one in written if "error" in one] == ["bad.png"]

    refused = patchknn(*line[:3], "--answers", tmp_path / "nowhere" / "a.ndjson")
    assert refused.code == 2
    assert "make it first" in refused.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--method", "flann"], "--method flann is none of patchknn, l2, annoy"),
        (["--sweep", "rows=3"], "--sweep rows=3: say it as"),
        (["--sweep", "bits=12"], "12 bits: give a multiple of 8"),
        (["--by", "scanner"], "no field 'scanner'"),
        (["--csv", "{file}"], "is a file: give a folder"),
        (["--fields", "organ"], "--fields shows in answers and reports: give --answers or"),
        (["--fields", "organ", "--answers", "{other}.ndjson"], "no field 'organ'"),
        (["--radius", "9", "--compare", "{other}"], "--radius 9 is more than the archive's codes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    patchknn: Run, place: Path, tmp_path: Path, more: list[str], told: str
) -> None:
    from patchknn.archive.create import create_archive
    from patchknn.bundle import load_bundle, write_bundle
    from patchknn.bundle_description import EncoderDescription, LinearMap

    file = tmp_path / "file"
    file.write_text("kept")
    other = tmp_path / "other"  # of 8 bits, where the archive has 16
    hash_map = LinearMap(np.ones((8, 2), np.float32), np.zeros(8, np.float32))
    write_bundle(tmp_path / "encoder", EncoderDescription(2, 8, "sign"), hash_map)
    create_archive(other, load_bundle(tmp_path / "encoder"), patch_px=32, mpp=None)
    words = [word.format(file=file, other=other) for word in more]
    result = patchknn("evaluate", place / "archive", place / "ask.csv", *words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert file.read_text() == "kept"


def test_tsv_has_a_line_per_method(patchknn: Run, place: Path) -> None:
    result = patchknn("evaluate", place / "archive", place / "ask.csv", "--format", "tsv")
    header, row = (text.split("\t") for text in result.out.splitlines())
    assert dict(zip(header, row, strict=True))["classes"] == "LYM STR"


def test_bad_images_are_reported_and_the_rest_is_done(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    write_picture(tmp_path / "good.png", "STR", 1)
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    lines = ["path,label,patient"]
    lines += [f"{name}.png,STR,P9" for name in ("good", "text", "empty", "missing")]
    (tmp_path / "some.csv").write_text("\n".join(lines) + "\n")
    result = patchknn("evaluate", place / "archive", tmp_path / "some.csv")
    assert result.code == 3
    report = json.loads(result.out)
    assert (report["n"], report["failed"]) == (1, 3)
    for name in ("text.png", "empty.png", "missing.png"):
        assert sum(name in line for line in result.err.splitlines()) == 1


def test_without_patients_the_remedy_is_named(patchknn: Run, place: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "STR" / "a.png", "STR", 1)
    refused = patchknn("evaluate", place / "archive", tmp_path / "images")
    assert refused.code == 1
    assert refused.out == ""
    assert "'patient' column" in refused.err
    assert "--exclude-same slide or self" in refused.err
    allowed = patchknn("evaluate", place / "archive", tmp_path / "images", "--exclude-same", "self")
    assert allowed.code == 0
    assert json.loads(allowed.out)["n"] == 1


def test_a_patient_missing_here_and_there_fails_only_there(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.png", "LYM", 3)
    (tmp_path / "some.csv").write_text("path,label,patient\na.png,LYM,P7\nb.png,LYM,\n")
    result = patchknn("evaluate", place / "archive", tmp_path / "some.csv")
    assert result.code == 3
    assert "b.png has no patient" in result.err
    assert json.loads(result.out)["n"] == 1


def test_unknown_classes_and_missing_labels_are_said(
    patchknn: Run, place: Path, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.png", "LYM", 3)
    text = "path,label,patient\na.png,LYM,P7\nb.png,ODD,P7\nc.png,,P7\n"
    (tmp_path / "some.csv").write_text(text)
    result = patchknn("evaluate", place / "archive", tmp_path / "some.csv")
    assert result.code == 0
    assert "the archive lacks class 'ODD': its queries (1) count as wrong." in result.err
    assert "patches without a label were left out: 1." in result.err
    assert json.loads(result.out)["unknown_classes"] == {"ODD": 1}


def test_another_encoder_is_refused(patchknn: Run, place: Path, tmp_path: Path) -> None:
    from patchknn.bundle import write_bundle
    from patchknn.bundle_description import EncoderDescription, LinearMap

    hash_map = LinearMap(np.ones((8, 2), np.float32), np.zeros(8, np.float32))
    write_bundle(tmp_path / "other", EncoderDescription(2, 8, "sign"), hash_map)
    line = ("evaluate", place / "archive", place / "ask.csv", "--encoder", tmp_path / "other")
    result = patchknn(*line)
    assert result.code == 1
    assert "is not the encoder of" in result.err


def test_an_archive_that_is_none_is_named(patchknn: Run, tmp_path: Path) -> None:
    result = patchknn("evaluate", tmp_path / "nowhere", tmp_path)
    assert result.code == 1
    assert str(tmp_path / "nowhere") in result.err


def test_given_data_calibrate_an_archive_and_judge_it(
    place: Path, tmp_path: Path, patchknn: Run
) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(place / "archive", archive)
    made = patchknn("archive", "calibrate", archive, place / "ask.csv", "--k", 3, "--device", "cpu")
    assert made.code == 0, made.err
    assert json.loads(made.out)["patients"] == 2
    line = ("evaluate", archive, place / "ask.csv", "--k", 3, "--calibrated", "--device", "cpu")
    found = patchknn(*line)
    assert found.code == 0, found.err
    assert "made of the same rows" not in found.err
    figures = json.loads(found.out)
    assert figures["calibrated_brier"] is not None
    beside = patchknn(*line, "--baseline", "mean-colour", "--format", "table")
    assert "set_coverage" in beside.out
