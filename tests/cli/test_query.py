"""``patchknn query``: every kind of query, every kind of output, and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from patchknn.archive.create import create_archive
from patchknn.archive.index.update import update_index
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle
from patchknn.cli.query_inputs import available
from patchknn.cli.query_table import _explain_lines
from patchknn.datasets.listing import iter_patches
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder
from patchknn.files import quickhash
from patchknn.indexing.features import embed_patches

SIZE = 32
CLASSES = ("ADI", "STR", "TUM")
WIDE = ("--max-radius", "16")
ANSWER_KEYS = {
    *("query", "prediction", "confidence", "weighted_confidence", "votes", "radius", "ball"),
    *("widened", "abstained", "classifier", "neighbours", "label"),
}
NEIGHBOUR_KEYS = {"id", "label", "hamming", "l2", "source", "x", "y", "patient"}


def save_encoder_of(directory, seed):
    torch.manual_seed(seed)
    backbone = create_backbone("test_resnet", input_size=SIZE)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, 16, (len(CLASSES),))
    save_encoder(
        directory,
        network,
        backbone,
        input_size=SIZE,
        bits=16,
        tasks={"label": CLASSES},
        hash_method="learned",
        training={},
        metrics={},
    )


def write_image(path, seed, colour=None):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    if colour is not None:
        pixels = (pixels // 4 + np.array(colour) * 3 // 4).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_archive(path, bundle, patches, extractor, with_backbone):
    embedded = list(embed_patches(patches, extractor, size=SIZE, mpp=None))
    features = np.stack([one.feature for one in embedded])
    sources = tuple(
        Source(
            one.patch.source,
            str(one.patch.path),
            one.patch.path.stat().st_size,
            0,
            quickhash(one.patch.path),
            patient=f"P{number % 4}" if number % 5 else None,
        )
        for number, one in enumerate(embedded)
    )
    rows = Rows(
        features,
        bundle.codes(features.astype(np.float16)),
        np.full((len(features), 2), -1),
        np.arange(len(features), dtype=np.int32),
        np.array([CLASSES.index(one.patch.label) for one in embedded], np.int32),
        sources,
        CLASSES,
    )
    create_archive(path, bundle, patch_px=SIZE, mpp=None, with_backbone=with_backbone)
    with ArchiveWriter(path) as writer:
        writer.add(rows)
        writer.publish()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An archive of 30 images in three classes, the images, and two encoders."""
    root = tmp_path_factory.mktemp("world")
    save_encoder_of(root / "encoder", 0)
    save_encoder_of(root / "other", 1)
    colours = {"ADI": (240, 240, 240), "STR": (230, 60, 150), "TUM": (90, 20, 120)}
    for number in range(30):
        label = CLASSES[number % 3]
        write_image(root / "train" / label / f"{number:02}.png", number, colours[label])
    bundle = load_bundle(root / "encoder")
    extractor = FeatureExtractor.from_bundle(bundle, torch.device("cpu"))
    for name, with_backbone in (("archive", True), ("bare", False)):
        patches = iter_patches([root / "train"], size=SIZE, mpp=None)
        write_archive(root / name, bundle, patches, extractor, with_backbone)
    return root


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def stored_ids(world):
    snapshot = open_archive(world / "archive")
    return [snapshot.row(row).id for row in range(snapshot.n_rows)]


EXPLAIN_KEYS = {
    *("kernels", "segments", "shards_without_index", "path", "lookups", "candidates"),
    *("codes_scanned", "rows_read", "rows_spared"),
}


def test_explain_says_what_the_search_took_and_changes_nothing_else(patchknn, world, tmp_path):
    archive = shutil.copytree(world / "archive", tmp_path / "archive")
    plain = patchknn("query", archive, "--id", *stored_ids(world))
    bare = patchknn("query", archive, "--explain", "--id", *stored_ids(world))
    update_index(archive)
    indexed = patchknn("query", archive, "--explain", "--id", *stored_ids(world))
    for result, segments in ((bare, 0), (indexed, 1)):
        for answer, expected in zip(lines(result), lines(plain), strict=True):
            explain = answer.pop("explain")
            assert answer == expected
            assert set(explain) == EXPLAIN_KEYS
            assert explain["segments"] == segments
            assert (explain["shards_without_index"] == 0) == bool(segments)
            assert explain["rows_read"] + explain["rows_spared"] >= len(answer["neighbours"])


@pytest.mark.parametrize(("segments", "words"), [(0, "0 index segments"), (1, "1 index segment\n")])
def test_explain_counts_segments_in_plain_words(segments, words):
    explain = dict.fromkeys(EXPLAIN_KEYS, 0) | {"segments": segments}
    assert words in "\n".join(_explain_lines(explain)) + "\n"


def test_a_damaged_index_is_named_and_searched_around(patchknn, world, tmp_path):
    archive = shutil.copytree(world / "archive", tmp_path / "archive")
    expected = patchknn("query", archive, "--id", *stored_ids(world))
    update_index(archive)
    (segment,) = (archive / "index" / "segments").iterdir()
    (segment / "codes.bin").write_bytes(b"")
    result = patchknn("query", archive, "--id", *stored_ids(world))
    assert (result.code, result.out) == (0, expected.out)
    (warning,) = result.err.splitlines()
    assert warning.startswith(f"warning: index/segments/{segment.name}/codes.bin ")
    assert f"'patchknn archive index {archive}'" in warning
    assert (warning.count(segment.name), warning.count(str(archive))) == (1, 1)
    assert patchknn("archive", "index", archive).code == 0
    assert patchknn("query", archive, "--id", *stored_ids(world)).err == ""


def test_an_image_is_answered_with_the_keys_of_the_design(patchknn, world, tmp_path):
    image = write_image(tmp_path / "ü [red].png", 99, (90, 20, 120))
    result = patchknn("query", world / "archive", image, *WIDE)
    assert (result.code, result.err) == (0, "")
    (answer,) = lines(result)
    assert answer.keys() == ANSWER_KEYS
    assert answer["query"] == str(image)
    assert [set(neighbour) for neighbour in answer["neighbours"]] == [NEIGHBOUR_KEYS] * 10
    assert answer["prediction"] == "TUM"
    distances = [neighbour["l2"] for neighbour in answer["neighbours"]]
    assert distances == sorted(distances)
    assert answer["classifier"].keys() == {"prediction", "probability", "agrees"}


def test_a_stored_row_finds_itself_first_at_distance_0_only_when_asked(patchknn, world):
    for patch_id in stored_ids(world)[:3]:
        result = patchknn("query", world / "archive", "--id", patch_id, "--exclude-same", "none")
        first = lines(result)[0]["neighbours"][0]
        assert (first["id"], first["l2"], first["hamming"]) == (patch_id, 0.0, 0)
        result = patchknn("query", world / "archive", "--id", patch_id, *WIDE)
        assert patch_id not in {n["id"] for n in lines(result)[0]["neighbours"]}


def test_a_copy_of_a_stored_image_does_not_answer_for_itself(patchknn, world, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copyfile(world / "train" / "TUM" / "02.png", copy)
    (answer,) = lines(patchknn("query", world / "archive", copy, "--k", 40, "--radius", 16))
    assert len(answer["neighbours"]) == 29
    assert "TUM/02.png" not in {neighbour["id"] for neighbour in answer["neighbours"]}
    (answer,) = lines(
        patchknn("query", world / "archive", copy, "--radius", 16, "--exclude-same", "none")
    )
    assert answer["neighbours"][0]["id"] == "TUM/02.png"


def test_a_folder_is_an_image_folder_and_a_bad_image_does_not_stop_it(
    patchknn, world, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_image(tmp_path / "in" / "STR" / f"{number}.png", number)
    (tmp_path / "in" / "STR" / "1.png").write_text("no image")
    result = patchknn("query", world / "archive", "in", "gone.png")
    assert result.code == 3
    answers = lines(result)
    assert [answer["query"] for answer in answers] == [
        *("in/STR/0.png", "in/STR/1.png", "in/STR/2.png"),
        "gone.png",
    ]
    assert [answer.get("label") for answer in answers] == ["STR", None, "STR", None]
    assert answers[1].keys() == {"query", "error"}
    assert "1.png is not an image" in answers[1]["error"]
    assert len(result.err.splitlines()) == 2
    assert "gone.png does not exist." in result.err
    assert patchknn("query", world / "archive", "gone.png").code == 1


def test_two_files_of_one_name_are_two_queries(patchknn, world, tmp_path):
    images = [write_image(tmp_path / folder / "a.png", 5) for folder in ("one", "two")]
    result = patchknn("query", world / "archive", *images)
    assert result.code == 0
    assert [answer["query"] for answer in lines(result)] == [str(image) for image in images]


def test_a_manifest_brings_label_and_patient(patchknn, world, tmp_path):
    write_image(tmp_path / "a.png", 1)
    write_image(tmp_path / "b.png", 2)
    (tmp_path / "list.csv").write_text("path,label,patient\na.png,TUM,P1\nb.png,STR,\n")
    result = patchknn(
        "query", world / "archive", tmp_path / "list.csv", "--exclude-same", "patient", *WIDE
    )
    assert result.code == 3
    first, second = lines(result)
    assert first["label"] == "TUM"
    assert "P1" not in {neighbour["patient"] for neighbour in first["neighbours"]}
    assert "has no known patient" in second["error"]
    result = patchknn(
        *("query", world / "archive", tmp_path / "list.csv"),
        *("--exclude-same", "patient", "--patient", "P2", *WIDE),
    )
    assert result.code == 0
    for answer in lines(result):
        assert "P2" not in {neighbour["patient"] for neighbour in answer["neighbours"]}


def test_every_tissue_tile_of_a_slide_is_a_query(patchknn, world, tmp_path):
    pixels = np.full((256, 256, 3), 245, np.uint8)
    grain = np.random.default_rng(0).integers(-30, 30, (256, 128, 3))
    pixels[:, :128] = np.clip(np.array([200, 90, 160]) + grain, 0, 255)
    slide = tmp_path / "s.tif"
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(slide, pixels, tile=(128, 128), photometric="rgb", **resolution)
    result = patchknn("query", world / "archive", slide)
    assert result.code == 0
    queries = [answer["query"] for answer in lines(result)]
    assert f"{slide}@0_0" in queries
    assert len(set(queries)) == len(queries) >= 16


def test_stored_features_need_neither_torch_nor_the_containers_libraries(world, tmp_path):
    dim = open_archive(world / "archive").settings.feature_dim
    np.save(tmp_path / "f.npy", np.ones((2, dim), np.float32))
    program = f"""
import sys
from patchknn.cli.main import run
archive = {str(world / "archive")!r}
assert run(["query", archive, {str(tmp_path / "f.npy")!r}]) == 0
assert run(["query", archive, "--id", {stored_ids(world)[0]!r}, "--max-per", "slide", "1"]) == 0
assert run(["query", archive, "--id", "nothing"]) == 1
heavy = {{"torch", "timm", "torchvision", "zarr", "h5py", "scipy", "sklearn", "PIL", "rich"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines()[-1] == "[]"
    assert len(finished.stdout.splitlines()) == 4


def test_a_plain_query_imports_little(world, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(world / "archive", archive)
    update_index(archive)
    dim = open_archive(archive).settings.feature_dim
    np.save(tmp_path / "f.npy", np.ones((1, dim), np.float32))
    program = f"""
import sys
started_with = set(sys.modules)  # an installation for development brings its own
import numpy, safetensors.numpy
needed = set(sys.modules)
from patchknn.cli.main import run
archive = {str(archive)!r}
assert run(["query", archive, "--id", {stored_ids(world)[0]!r}]) == 0
assert run(["query", archive, {str(tmp_path / "f.npy")!r}, "--k", "3", "--format", "tsv"]) == 0
packages = {{name.partition(".")[0] for name in set(sys.modules) - started_with}}
print(sorted(packages - set(sys.stdlib_module_names)), file=sys.stderr)
slow = {{"asyncio", "concurrent", "csv", "dataclasses", "email", "http", "importlib.metadata",
        "inspect", "logging",
        "multiprocessing", "queue", "secrets", "shutil", "socket", "sqlite3", "ssl", "subprocess",
        "tempfile", "traceback", "xml", "zipfile", "patchknn.cli.query_images",
        "patchknn.cli.query_table", "patchknn.archive.writer", "patchknn.archive.verify",
        "patchknn.archive.index.build", "patchknn.archive.index.update"}}
assert "patchknn.archive.index.segment" in sys.modules
print(sorted(slow & (set(sys.modules) - needed)), file=sys.stderr)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    packages, slow = finished.stderr.splitlines()
    assert packages == "['numpy', 'patchknn', 'safetensors']"
    assert slow == "[]"


@pytest.mark.parametrize("command", ["query", "evaluate"])
def test_unknown_kernels_are_a_wrong_command_line(world, command):
    line = [command, str(world / "archive"), str(world / "train"), "--exclude-same", "self"]
    finished = subprocess.run(
        [sys.executable, "-m", "patchknn", *line],
        capture_output=True,
        text=True,
        env={**os.environ, "PATCHKNN_KERNELS": "avx3"},
    )
    assert finished.returncode == 2, finished.stderr
    assert finished.stdout == ""
    (said,) = finished.stderr.splitlines()
    assert said.startswith("patchknn: PATCHKNN_KERNELS=avx3: no such kernels here. ")


def test_rows_of_feature_files_are_queries(patchknn, world, tmp_path):
    dim = open_archive(world / "archive").settings.feature_dim
    features = np.ones((3, dim))
    features[1, 0] = np.nan
    np.save(tmp_path / "f.npy", features)
    np.save(tmp_path / "g.npy", features[:, 1:])
    result = patchknn("query", world / "archive", tmp_path / "f.npy", tmp_path / "g.npy")
    assert result.code == 3
    answers = lines(result)
    assert [answer["query"].rsplit("/", 1)[1] for answer in answers] == [
        *("f.npy#0", "f.npy#1", "f.npy#2"),
        "g.npy",
    ]
    assert "NaN or infinite" in answers[1]["error"]
    assert f"(N, {dim})" in answers[3]["error"]


def test_ids_may_follow_and_come_from_stdin(patchknn, world, monkeypatch):
    one, two, three = stored_ids(world)[:3]
    result = patchknn("query", world / "archive", "--id", one, two, "--id", three)
    assert [answer["query"] for answer in lines(result)] == [one, three, two]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{one}\n\nnothing\r\n{two}\n"))
    result = patchknn("query", world / "archive", "--id", "-")
    assert result.code == 3
    assert [answer["query"] for answer in lines(result)] == [one, "nothing", two]
    assert "'nothing' is no patch of" in result.err


def test_an_empty_id_is_quoted(patchknn, world):
    result = patchknn("query", world / "archive", "--id", "")
    assert result.code == 1
    assert result.err.startswith(f"patchknn: '' is no patch of {world / 'archive'};")
    (answer,) = lines(result)
    assert (answer["query"], answer["error"]) == ("", result.err.removeprefix("patchknn: ").strip())


def test_answers_to_a_pipe_come_out_as_they_are_made(world, tmp_path):
    dim = open_archive(world / "archive").settings.feature_dim
    np.save(tmp_path / "f.npy", np.ones((1, dim)))
    command = [sys.executable, "-m", "patchknn", "query", world / "archive", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for _ in range(2):  # the second path is written only once the first is answered
            process.stdin.write(os.fsencode(tmp_path / "f.npy") + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["query"].endswith("f.npy#0")
        process.stdin.write(b"n\xf6.png\n")
        process.stdin.close()
        assert "error" in json.loads(process.stdout.readline())
        assert process.wait() == 3


def test_waiting_lines_are_taken_together_up_to_a_limit():
    assert list(chain.from_iterable(available(iter("abcdefg"), 3))) == list("abcdefg")
    assert all(1 <= len(batch) <= 3 for batch in available(iter("abcdefg"), 3))
    assert list(available(iter(""), 3)) == []

    def broken():
        yield "a"
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        list(available(broken(), 3))


def test_filters_reach_the_search(patchknn, world):
    patch_id = stored_ids(world)[0]
    base = ("query", world / "archive", "--id", patch_id, "--radius", 16)
    (answer,) = lines(patchknn(*base, "--label", "STR", "--label", "ADI"))
    assert {n["label"] for n in answer["neighbours"]} <= {"STR", "ADI"}
    (answer,) = lines(patchknn(*base, "--max-per", "patient", 1, "--k", 5))
    patients = [n["patient"] for n in answer["neighbours"] if n["patient"]]
    assert len(answer["neighbours"]) == 5
    assert len(set(patients)) == len(patients)
    for coarse in ("l2", "annoy"):
        (answer,) = lines(patchknn(*base, "--coarse", coarse, "--candidates", 20))
        assert (answer["radius"], answer["ball"]) == (None, 20)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.png", "--k", "0"], "--k 0 asks for no neighbours"),
        (["f.npy", "--explain", "--format", "tsv"], "TSV has no place for --explain"),
        (["a.png", "--radius", "17"], "--radius 17 is more than the archive's codes have bits"),
        (["a.png", "--label", "TUN"], "has no such class; did you mean 'TUM'?"),
        (["a.png", "--max-per", "site", "2"], "--max-per site is none of slide, patient."),
        (["a.png", "--size", "64"], "holds patches of 32 px."),
        (["a.png", "-o", "x", "--format", "tsv"], "-o writes NDJSON, not tsv"),
        (["a.png", "--montage", "no/x.png"], "--montage no/x.png: there is no folder no"),
        (["a.png", "-o", "no/x.ndjson"], "-o no/x.ndjson: there is no folder no; make it"),
        (["a.png", "--image-mpp", "-1"], "Invalid value for '--image-mpp'"),
        (["a.png", "--default-mpp", "nan"], "Invalid value for '--default-mpp'"),
        (["a.png", "--k", "ten"], "Invalid value for '--k'"),
        (["a.png", "--batch-size", str(10**20)], "Invalid value for '--batch-size'"),
        (["a.png", "--radius", "-1"], "--radius -1 is negative"),
        (["a.png", "--size", "0"], "--size 0: "),
        (["a.png", "--montage", "x.doc"], "--montage x.doc: its name must end in .png"),
        (["-", "-"], "stdin ('-') can be read only once."),
        ([], "nothing to query"),
    ],
)
def test_wrong_usage_is_a_sentence(patchknn, world, arguments, sentence):
    result = patchknn("query", world / "archive", *arguments)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("array", ["features", "codes", "label", "source_name_bytes"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_shard_is_named_by_every_command(patchknn, world, tmp_path, array, damage):
    archive = tmp_path / "archive"
    shutil.copytree(world / "archive", archive)
    (file,) = (path for path in archive.glob(f"shards/*.zarr/{array}/c/**/*") if path.is_file())
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    for line in (
        ("query", archive, "--id", "STR/01.png"),
        ("query", archive, world / "train"),
        ("evaluate", archive, world / "train", "--exclude-same", "self"),
        ("embed", world / "train", "--archive", archive, "--workers", 0),
        ("archive", "list", archive),
    ):
        result = patchknn(*line)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith(f"patchknn: {file} ")
        assert f"'patchknn archive verify {archive}', then restore it" in result.err
        assert len(result.err.splitlines()) == 1
    assert patchknn("archive", "verify", archive).code == 1
    assert patchknn("archive", "info", archive).code == 0  # it reads the manifest and no shard


def test_flipped_bits_never_end_in_a_crash(patchknn, world, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(world / "archive", archive)
    rng = np.random.default_rng(0)
    for file in sorted(path for path in archive.glob("shards/**/*") if path.is_file()):
        content = file.read_bytes()
        noise = bytearray(content)
        for place in rng.integers(0, len(noise), 4):
            noise[place] ^= 1 << rng.integers(8)
        file.write_bytes(noise)
        for options in (("--id", "STR/01.png"), ("--id", "TUM/02.png", "--coarse", "l2")):
            result = patchknn("query", archive, *options, "--max-per", "patient", 2)
            assert result.code in {0, 1}, result.err
            assert "unexpected" not in result.err
        assert patchknn("archive", "verify", archive).code == (bytes(noise) != content)
        file.write_bytes(content)


def test_the_encoder_must_be_the_archives(patchknn, world, tmp_path):
    image = write_image(tmp_path / "a.png", 1)
    result = patchknn("query", world / "archive", image, "--encoder", world / "other")
    assert result.code == 1
    for name in ("encoder", "other"):
        assert load_bundle(world / name).fingerprint[:12] in result.err
    result = patchknn("query", world / "bare", image)
    assert result.code == 1
    assert "has no backbone: give --encoder" in result.err
    assert patchknn("query", world / "bare", image, "--encoder", world / "encoder").code == 0
    missing = patchknn("query", tmp_path / "none", image)
    assert missing.code == 1
    assert str(tmp_path / "none") in missing.err


def test_tsv_has_a_row_per_neighbour_and_one_where_there_is_none(patchknn, world, tmp_path):
    patch_id = stored_ids(world)[0]
    result = patchknn(
        "query", world / "archive", "--id", patch_id, "--format", "tsv", "--radius", 16, "--k", 3
    )
    header, *rows = [line.split("\t") for line in result.out.splitlines()]
    assert header[:5] == ["query", "rank", "id", "label", "hamming"]
    assert [row[1] for row in rows] == ["1", "2", "3"]
    assert all(len(row) == len(header) for row in rows)
    snapshot = open_archive(world / "archive")
    far = -snapshot.shards[0].features[0]
    np.save(tmp_path / "far.npy", far)
    result = patchknn(
        *("query", world / "archive", tmp_path / "far.npy", "--format", "tsv"),
        *("--radius", 0, "--max-radius", 0),
    )
    (row,) = [line.split("\t") for line in result.out.splitlines()[1:]]
    assert row == [f"{tmp_path / 'far.npy'}#0", *[""] * 11, "true"]


def test_the_table_shows_the_vote_and_obeys_no_name(patchknn, world, tmp_path):
    image = write_image(tmp_path / "[red]x[/red]\x1b[31m\n.png", 7, (90, 20, 120))
    result = patchknn("query", world / "archive", image, "--format", "table", *WIDE)
    assert result.code == 0
    assert "\x1b" not in result.out
    assert "[red]x[/red]\\x1b[31m\\n.png" in result.out.replace("\n", "")
    assert "█" in result.out
    assert "TUM" in result.out
    assert "bits" in result.out
    assert "classifier" in result.out
    ranks = [line for line in result.out.splitlines() if ".png  " in line]
    assert len(ranks) == 10


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_rerun_goes_on_where_the_file_stopped(patchknn, world, tmp_path):
    images = [write_image(tmp_path / f"{number}.png", number) for number in range(4)]
    (tmp_path / "2.png").write_text("broken")
    out = tmp_path / "answers.ndjson"
    first = patchknn("query", world / "archive", *images[:3], "-o", out)
    assert (first.code, first.out) == (3, "")
    assert "2 answered, 0 skipped (answered before), 1 failed" in first.err
    with out.open("a") as file:
        file.write('{"query": "cut sho')
    write_image(tmp_path / "2.png", 2)
    write_image(tmp_path / "0.png", 100)  # the same name, another picture
    second = patchknn("query", world / "archive", *images, "-o", out)
    assert second.code == 0
    assert "3 answered, 1 skipped" in second.err
    answers = read(out)
    assert [answer["query"][-5:] for answer in answers] == [
        *("0.png", "1.png"),
        *("0.png", "2.png", "3.png"),
    ]
    assert not any("error" in answer for answer in answers)
    assert patchknn("query", world / "archive", *images, "-o", out).err.startswith(
        f"{out}: 0 answered, 4 skipped"
    )
    assert read(out) == answers


def test_other_settings_make_every_answer_anew_and_keep_the_old(patchknn, world, tmp_path):
    out = tmp_path / "answers.ndjson"
    patch_id = stored_ids(world)[0]
    patchknn("query", world / "archive", "--id", patch_id, "-o", out)
    old = out.read_text()
    result = patchknn("query", world / "archive", "--id", patch_id, "-o", out, "--k", 3)
    assert result.code == 0
    assert "was made with k 10 (now 3)" in result.err
    assert (tmp_path / "answers.ndjson.previous").read_text() == old
    (answer,) = read(out)
    assert len(answer["neighbours"]) <= 3


def test_a_file_of_someone_else_is_left_alone(patchknn, world, tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("my notes\n")
    result = patchknn("query", world / "archive", "--id", stored_ids(world)[0], "-o", out)
    assert result.code == 1
    assert f"{out} exists and was not written by query -o" in result.err
    assert out.read_text() == "my notes\n"


def test_a_montage_is_drawn_beside_the_answers(patchknn, world, tmp_path):
    out = tmp_path / "m.png"
    result = patchknn(
        "query", world / "archive", world / "train" / "TUM", "--montage", out, "--k", 4, *WIDE
    )
    assert result.code == 0
    assert len(lines(result)) == 10
    assert result.err == f"{out} is drawn.\n"
    with Image.open(out) as image:
        assert image.width > 800


def test_the_table_is_readable_on_a_terminal_that_knows_ascii_only(world):
    command = [sys.executable, "-m", "patchknn", "query", world / "archive", "--format", "table"]
    finished = subprocess.run(
        [*command, "--id", stored_ids(world)[0], *WIDE],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.isascii()
    assert " ####" in finished.stdout
