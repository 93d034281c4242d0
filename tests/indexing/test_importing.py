"""Features of TRIDENT, CLAM, STAMP and NumPy become rows of an archive, bit for bit."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.imported import noted_attributes, noted_encoder
from patchknn.archive.listing import list_rows
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.errors import ConflictError, InputError, StoppedError, UsageError
from patchknn.indexing.import_encoder import draw
from patchknn.indexing.import_fit import Asked
from patchknn.indexing.import_parts import Reading, paired
from patchknn.indexing.import_prepare import ImportSettings, prepare_import
from patchknn.indexing.importing import Importer

DIM, BITS = 12, 16


def values(n, seed, dtype="float32", dim=DIM):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(dtype)


def trident(path, n=5, seed=0, *, dtype="float32", dim=DIM, features=None, coords=None, **said):
    """As TRIDENT's ``save_h5`` writes it: growable, chunked by rows, attributes on ``coords``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = values(n, seed, dtype, dim) if features is None else features
    if coords is None:
        coords = np.stack([512 * np.arange(len(features)), np.full(len(features), 1024)], axis=1)
    attributes = {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
        "target_magnification": 20, "overlap": 0, "name": path.stem, "savetodir": "/home/jane/x",
        "level0_width": 9000, **said,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, data in (("features", features), ("coords", coords)):
            shape = data.shape[1:]
            file.create_dataset(name, data=data, maxshape=(None, *shape), chunks=(1, *shape))
        file["features"].attrs.update({"name": path.stem, "savetodir": "/home/jane/x"})
        file["coords"].attrs.update({k: v for k, v in attributes.items() if v is not None})
    return features


def clam(path, n=4, seed=0):
    """As CLAM's ``save_hdf5`` writes it: no attribute at all, int32 positions."""
    features = values(n, seed)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, maxshape=(None, DIM), chunks=(1, DIM))
        file["coords"] = np.stack([256 * np.arange(n), np.zeros(n, int)], axis=1).astype(np.int32)
    return features


def stamp(path, n=6, seed=0, **changes):
    """As STAMP 2 writes it: float16, positions in µm as float32, attributes on the file."""
    features = values(n, seed, "float16")
    attributes = {
        "stamp_version": "2.3.0", "extractor": "mahmood-uni2", "unit": "um", "tile_size_um": 256.0,
        "tile_size_px": 224, "code_hash": "0123abcd", "feat_type": "tile", **changes,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file["coords"] = np.stack([256 * np.arange(n), np.full(n, 512)], 1).astype(np.float32)
        file["feats"] = features
        file.attrs.update({key: value for key, value in attributes.items() if value is not None})
    return features


class Told(list):
    """What was said of inputs that were left out, and ``warned`` of labels."""

    def __init__(self):
        super().__init__()
        self.warned = []


@pytest.fixture
def take(tmp_path):
    """Import into ``archive`` below the test's folder; counts and what was said."""

    def call(*files, labels=None, slide_mpp=None, unit=None, asked=None, dry_run=False, **settings):
        archive = tmp_path / "archive"
        chosen = ImportSettings(
            reading=Reading(paired(files), labels, slide_mpp, unit),
            asked=asked or Asked(),
            **{"bits": None if archive.exists() else BITS, **settings},
        )
        told = Told()
        fit = prepare_import(archive, chosen, dry_run=dry_run)
        importer = Importer(archive, fit, chosen, failed=told.append, warned=told.warned.append)
        return importer.run(dry_run=dry_run), told

    return call


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "archive"


def stored(archive):
    """Features by patch id, as they lie in the shards."""
    snapshot = open_archive(archive)
    return {
        row.id: shard.features[local]
        for row in list_rows(snapshot)
        for shard, local in [snapshot.shard_of(row.row)]
    }


def bits_of(features):
    return np.ascontiguousarray(features).view(np.uint8).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_trident_files_come_bit_for_bit_and_with_codes(take, archive, tmp_path, dtype):
    one = trident(tmp_path / "in/a.h5", 40, 1, dtype=dtype)
    half = {"level0_magnification": 20, "patch_size_level0": 256}
    two = trident(tmp_path / "in/site/b.x.h5", 30, 2, dtype=dtype, **half)
    counts, told = take(tmp_path / "in")
    assert (counts.rows, counts.sources, counts.failed, told) == (70, 2, 0, [])
    snapshot = open_archive(archive)
    settings, bundle = snapshot.settings, snapshot.bundle()
    assert (settings.feature_dtype, settings.bits) == (dtype, BITS)
    assert (settings.patch_px, settings.mpp) == (256, 0.5)
    found = stored(archive)
    for name, features in (("a", one), ("site/b.x", two)):
        for row, feature in enumerate(features):
            assert bits_of(found[f"{name}@{512 * row}_1024"]) == bits_of(feature)
    for shard in snapshot.shards:
        assert np.array_equal(shard.codes, bundle.codes(shard.features))
    assert {s.name: s.mpp for s in snapshot.sources()} == {"a": 0.25, "site/b.x": 0.5}
    assert not bundle.has_backbone
    assert noted_attributes(bundle.description) == {
        "patch_size": 256, "overlap": 0, "target_magnification": 20,
    }  # fmt: skip
    assert verify_archive(archive) == []
    balance = np.unpackbits(np.concatenate([s.codes for s in snapshot.shards]), axis=1).mean(0)
    assert ((balance > 0.2) & (balance < 0.8)).all()  # ITQ centres: no bit says nothing


def test_nothing_of_the_files_that_names_people_or_folders_goes_into_the_bundle(
    take, archive, tmp_path
):
    trident(tmp_path / "in/Doe_Jane.h5", 9)
    take(tmp_path / "in")
    text = (archive / "encoder/encoder.json").read_text()
    assert "Doe" not in text
    assert "jane" not in text


def test_stamp_positions_in_um_become_pixels(take, archive, tmp_path):
    features = stamp(tmp_path / "s.h5")
    counts, _ = take(tmp_path / "s.h5")
    assert counts.scaled == 1
    snapshot = open_archive(archive)
    assert (snapshot.settings.patch_px, snapshot.settings.mpp) == (224, 256 / 224)
    assert noted_encoder(snapshot.bundle().description) == "mahmood-uni2"
    found = stored(archive)
    assert sorted(found) == sorted(f"s@{224 * n}_448" for n in range(6))
    assert all(bits_of(found[f"s@{224 * n}_448"]) == bits_of(features[n]) for n in range(6))


def test_slide_mpp_makes_them_pixels_of_level_0(take, archive, tmp_path):
    stamp(tmp_path / "s.h5")
    take(tmp_path / "s.h5", slide_mpp=0.25)
    snapshot = open_archive(archive)
    assert "s@1024_2048" in stored(archive)
    assert snapshot.find_source("s").mpp == 0.25


def test_a_unit_that_nobody_says_is_not_guessed(take, archive, tmp_path):
    changes = {"unit": None, "tile_size_um": None, "tile_size_px": None}
    stamp(tmp_path / "s.h5", **changes)
    with pytest.raises(InputError, match="pixels or µm: give --unit"):
        take(tmp_path / "s.h5")
    with pytest.raises(InputError, match="give --slide-mpp"):
        take(tmp_path / "s.h5", unit="um")
    take(tmp_path / "s.h5", unit="um", slide_mpp=0.5, asked=Asked(patch_px=224))
    assert "s@512_1024" in stored(archive)


def test_clam_files_say_no_patch_size(take, archive, tmp_path):
    features = clam(tmp_path / "c.h5")
    with pytest.raises(UsageError, match=r"c\.h5 does not say .* give --patch-px"):
        take(tmp_path / "c.h5")
    assert not archive.exists()
    take(tmp_path / "c.h5", asked=Asked(patch_px=256))
    assert open_archive(archive).settings.mpp is None
    found = stored(archive)
    assert all(bits_of(found[f"c@{256 * n}_0"]) == bits_of(features[n]) for n in range(4))


def test_later_imports_use_the_bundle_and_refuse_what_does_not_fit(take, archive, tmp_path):
    trident(tmp_path / "a.h5", 20, encoder="uni_v1")
    take(tmp_path / "a.h5")
    before = open_archive(archive).settings.encoder_fingerprint
    trident(tmp_path / "wide.h5", dim=DIM + 1, encoder="virchow")
    trident(tmp_path / "other.h5", encoder="conch_v1")
    trident(tmp_path / "size.h5", patch_size=224, patch_size_level0=448)
    trident(tmp_path / "scale.h5", target_magnification=10, patch_size_level0=1024)
    good = trident(tmp_path / "good.h5", 7, 5, dtype="float16", encoder="uni_v1")
    names = ("wide", "other", "size", "scale", "good")
    counts, told = take(*(tmp_path / f"{name}.h5" for name in names))
    assert (counts.sources, counts.failed, len(told)) == (1, 4, 4)
    assert "width 13 made by virchow, the archive's of width 12 made by uni_v1" in told[0]
    assert "made by conch_v1, the archive's by uni_v1" in told[1]
    assert "224 px, the archive's of 256 px" in told[2]
    assert "at 1 µm/px, the archive's at 0.5" in told[3]
    assert open_archive(archive).settings.encoder_fingerprint == before
    found = stored(archive)["good@512_1024"]  # float16 in float32: without loss
    assert found.tolist() == good[1].tolist()


def test_what_would_lose_bits_is_refused_unless_asked_for(take, archive, tmp_path):
    trident(tmp_path / "a.h5", 20, dtype="float16")
    take(tmp_path / "a.h5")
    trident(tmp_path / "b.h5", 5, 1, dtype="float32")
    _, told = take(tmp_path / "b.h5")
    assert "float32, the archive's float16; say --feature-dtype float16" in told[0]
    counts, told = take(tmp_path / "b.h5", asked=Asked(feature_dtype="float16"))
    assert (counts.rows, told) == (5, [])


def test_float64_is_rounded_only_where_asked_for(take, archive, tmp_path):
    trident(tmp_path / "a.h5", 20, dtype="float64")
    counts, told = take(tmp_path / "a.h5")
    assert (counts.rows, len(told)) == (0, 1)
    assert "float64, and archives at most float32: say --feature-dtype float32" in told[0]
    counts, _ = take(tmp_path / "a.h5", asked=Asked(feature_dtype="float32"))
    assert counts.rows == 20


def test_other_settings_than_the_archive_has_are_refused(take, archive, tmp_path):
    trident(tmp_path / "a.h5", 20)
    take(tmp_path / "a.h5")
    for settings in ({"bits": 24}, {"asked": Asked(patch_px=224)}, {"asked": Asked("float16")}):
        with pytest.raises(ConflictError, match=r"was made with other settings: .*asked for"):
            take(tmp_path / "a.h5", **settings)


def test_the_same_again_is_skipped_and_other_content_refused(take, archive, tmp_path):
    trident(tmp_path / "a.h5", 20)
    trident(tmp_path / "b.h5", 5, 1)
    take(tmp_path / "a.h5", tmp_path / "b.h5")
    counts, told = take(tmp_path / "a.h5", tmp_path / "b.h5")
    assert (counts.rows, counts.skipped, counts.number, told) == (0, 2, None, [])
    trident(tmp_path / "a.h5", 20, 9)
    counts, told = take(tmp_path / "a.h5", tmp_path / "b.h5")
    assert (counts.skipped, counts.failed) == (1, 1)
    assert "a.h5 holds other features of 'a'" in told[0]
    assert f"patchknn archive remove {archive} --slide a" in told[0]
    remove_rows(archive, Choice(slides=["a"]))
    counts, _ = take(tmp_path / "a.h5")
    assert counts.rows == 20
    assert stored(archive)["a@0_1024"].tolist() == values(20, 9)[0].tolist()


def test_two_files_of_one_name(take, archive, tmp_path):
    trident(tmp_path / "one/a.h5", 20)
    trident(tmp_path / "two/a.h5", 20, 1)
    trident(tmp_path / "same/a.h5", 20)
    files = [tmp_path / name / "a.h5" for name in ("one", "two", "same")]
    counts, told = take(*files)
    assert (counts.sources, counts.skipped, counts.failed) == (1, 1, 1)
    assert f"{files[1]} and {files[0]} both hold features of 'a'" in told[0]


def test_bad_files_among_many_are_named_and_the_rest_is_done(take, archive, tmp_path):
    folder = tmp_path / "in"
    good = trident(folder / "good.h5", 20)
    broken = values(5, 1)
    broken[3, 2] = np.nan
    trident(folder / "nan.h5", features=broken)
    trident(folder / "twice.h5", 3, coords=np.array([[0, 0], [5, 5], [0, 0]]))
    trident(folder / "outside.h5", 2, coords=np.array([[0, 0], [-512, 0]]))
    trident(folder / "between.h5", 2, coords=np.array([[0, 0], [0.5, 0]]))
    trident(folder / "nowhere.h5", 2, coords=np.array([[-1, -1], [-1, -1]]))
    trident(folder / "empty.h5", features=np.zeros((0, DIM), np.float32))
    (folder / "text.h5").write_text("no HDF5")
    counts, told = take(folder, tmp_path / "gone.h5", tmp_path / "in" / "text.txt")
    assert (counts.rows, counts.sources, counts.empty, counts.failed) == (20, 1, 1, 8)
    for sentence in (
        "nan.h5: the features of row 3 hold a NaN",
        "twice.h5 holds two patches of twice at 0, 0.",
        "outside.h5: row 1 lies outside its slide, at -512, 0.",
        "between.h5: the position 0.5, 0 of row 1 is no pixel",
        "nowhere.h5 gives 2 patches of nowhere and not where they lie.",
        "text.h5 cannot be read as HDF5",
        "gone.h5 does not exist.",
        "text.txt does not exist.",
    ):
        assert sum(sentence in text for text in told) == 1, sentence
    assert all(
        bits_of(stored(archive)[f"good@{512 * n}_1024"]) == bits_of(good[n]) for n in (0, 19)
    )
    assert verify_archive(archive) == []


def test_where_nothing_can_be_used_no_archive_is_made(take, archive, tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match=r"no features to import: .*text\.h5 cannot be read"):
        take(tmp_path / "text.h5")
    trident(tmp_path / "same.h5", features=np.ones((5, DIM), np.float32))
    with pytest.raises(InputError, match="at least two different features"):
        take(tmp_path / "same.h5")
    assert not archive.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["same.h5", "text.h5"]


def labels_in(archive):
    return {row.id: row.label for row in list_rows(open_archive(archive))}


def test_labels_by_slide_with_patients_and_rows_that_match_nothing(take, archive, tmp_path):
    for name in "abc":
        trident(tmp_path / f"in/{name}.h5", 5, ord(name))
    table = tmp_path / "slides.csv"
    table.write_text("slide,label,patient\na.svs,TUM,P1\nb,STR,\nz.svs,TUM,P2\n")
    counts, told = take(tmp_path / "in", labels=table)
    assert (counts.sources, counts.failed, counts.unmatched_labels, told) == (3, 0, 1, [])
    assert told.warned == [f"{table}, line 4: there are no features of z.svs."]
    found = labels_in(archive)
    assert {found[f"{name}@0_1024"] for name in "a"} == {"TUM"}
    assert found["b@512_1024"] == "STR"
    assert found["c@0_1024"] is None  # a slide without a row is imported all the same
    assert {s.name: s.patient for s in open_archive(archive).sources()}["a"] == "P1"


@pytest.mark.parametrize(
    "text",
    [
        "name,x,y,label\na,0,1024,TUM\na,512,1024,STR\na,7,7,TUM\na,8,8,TUM\n",
        "id,label\na@0_1024,TUM\na@512_1024,STR\na@7_7,TUM\nb@0_0,STR\n",
        "path,label,x,y,mpp,name,patient,id\n,TUM,0,1024,,a,,a@0_1024\n,STR,512,1024,,a,,-\n"
        ",TUM,1,1,,a,,-\n,TUM,,,,image.png,,-\n",
    ],
)
def test_labels_by_patch(take, archive, tmp_path, text):
    trident(tmp_path / "a.h5", 5)
    table = tmp_path / "patches.csv"
    table.write_text(text)
    counts, told = take(tmp_path / "a.h5", labels=table)
    assert (counts.failed, counts.unmatched_labels, told) == (0, 2, [])
    found = labels_in(archive)
    assert (found["a@0_1024"], found["a@512_1024"], found["a@1024_1024"]) == ("TUM", "STR", None)


def test_npy_with_a_table_beside_it(take, archive, tmp_path):
    features = values(4, 0, "float16")
    np.save(tmp_path / "f.npy", features)
    (tmp_path / "f.csv").write_text(
        "path,name,x,y,label,patient\na/1.png,,,,TUM,P1\nb.svs,B,0,0,STR,P2\nb.svs,B,256,0,,\n"
        "c.png,,-1,-1,TUM,\n"
    )
    counts, told = take(tmp_path / "f.npy", asked=Asked(patch_px=224))
    assert (counts.rows, counts.sources, told) == (4, 3, [])
    assert labels_in(archive) == {
        "a/1.png": "TUM", "B@0_0": "STR", "B@256_0": None, "c.png": "TUM",
    }  # fmt: skip
    found = stored(archive)
    for name, row in (("a/1.png", 0), ("B@0_0", 1), ("B@256_0", 2), ("c.png", 3)):
        assert bits_of(found[name]) == bits_of(features[row])
    sources = {source.name: source for source in open_archive(archive).sources()}
    assert (sources["B"].patient, sources["c.png"].patient) == ("P2", None)
    assert sources["a/1.png"].path == str(tmp_path / "a/1.png")


def test_the_content_of_a_source_in_npy_is_its_own_rows(take, archive, tmp_path):
    features = values(6, 0)
    table = tmp_path / "table.tsv"
    np.save(tmp_path / "f.npy", features[:4])
    table.write_text("name\tx\ty\n" + "".join(f"s{n // 2}\t{n}\t0\n" for n in range(4)))
    asked = Asked(patch_px=224)
    take(tmp_path / "f.npy", table, asked=asked)
    np.save(tmp_path / "f.npy", np.concatenate([features[4:], features[:4]]))
    table.write_text("name\tx\ty\ns2\t0\t0\ns2\t1\t0\n" + table.read_text().split("\n", 1)[1])
    counts, told = take(tmp_path / "f.npy", table, asked=asked)
    assert (counts.rows, counts.sources, counts.skipped, told) == (2, 1, 2, [])
    features[0, 0] += 1  # of s0 alone
    np.save(tmp_path / "f.npy", np.concatenate([features[4:], features[:4]]))
    counts, told = take(tmp_path / "f.npy", table, asked=asked)
    assert (counts.skipped, counts.failed) == (2, 1)
    assert "other features of 's0'" in told[0]


@pytest.mark.parametrize(
    ("array", "text", "sentence"),
    [
        (values(3, 0), "name\na\nb\n", "of 3 patches and .* has 2 rows"),
        (values(2, 0), "label\nA\nB\n", "no column 'name'"),
        (values(2, 0), "name,x\na,0\nb,1\n", "only one of the columns x and y"),
        (values(2, 0), "name,x,y\na,0,\nb,1,1\n", "line 2: x or y is empty"),
        (values(2, 0), "name,patient\na,P\na,Q\n", "line 3: a is of patient Q, and of P"),
        (values(2, 0), "name,label\n,A\nb,B\n", "line 2: it has neither a name nor a path"),
        (np.arange(6).reshape(2, 3), "name\na\nb\n", "int64.*save features"),
        (values(2, 0), None, "needs a table of its rows beside it"),
    ],
)
def test_npy_and_table_that_do_not_fit(take, tmp_path, array, text, sentence):
    np.save(tmp_path / "f.npy", array)
    if text is not None:
        (tmp_path / "f.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        take(tmp_path / "f.npy", asked=Asked(patch_px=224))


def test_a_bundle_that_is_given_serves_instead_of_itq(take, archive, tmp_path):
    random = np.random.default_rng(0)
    linear = LinearMap(random.normal(size=(8, DIM)).astype(np.float32), np.zeros(8, np.float32))
    write_bundle(tmp_path / "enc", EncoderDescription(DIM, 8, "itq", backbone="mine"), linear)
    bundle = load_bundle(tmp_path / "enc")
    asked = Asked(encoder=True)
    features = trident(tmp_path / "a.h5", 9, encoder="uni_v1")
    take(tmp_path / "a.h5", bundle=bundle, asked=asked, bits=None)
    snapshot = open_archive(archive)
    assert snapshot.settings.encoder_fingerprint == bundle.fingerprint
    assert snapshot.row(0).code == bundle.codes(stored(archive)[snapshot.row(0).id][None]).tobytes()
    trident(tmp_path / "b.h5", 9, 1, encoder="uni_v1")
    _, told = take(tmp_path / "b.h5")  # without it the names speak
    assert "made by uni_v1, the archive's by mine" in told[0]
    write_bundle(tmp_path / "enc2", EncoderDescription(DIM, 8, "sign", backbone="mine"), linear)
    with pytest.raises(ConflictError, match="holds rows of the encoder"):
        take(tmp_path / "b.h5", bundle=load_bundle(tmp_path / "enc2"), asked=asked)
    wide = LinearMap(np.ones((8, 3), np.float32), np.zeros(8, np.float32))
    write_bundle(tmp_path / "enc3", EncoderDescription(3, 8, "itq"), wide)
    with pytest.raises(ConflictError, match="width 3, and these are of width 12"):
        take(tmp_path / "b.h5", bundle=load_bundle(tmp_path / "enc3"), asked=asked)
    assert len(features) == len(snapshot)


def test_a_dry_run_counts_and_writes_nothing(take, archive, tmp_path):
    trident(tmp_path / "a.h5", 20)
    counts, _ = take(tmp_path / "a.h5", dry_run=True)
    assert (counts.rows, counts.sources, archive.exists()) == (20, 1, False)
    take(tmp_path / "a.h5")
    trident(tmp_path / "b.h5", 5, 1)
    counts, _ = take(tmp_path / "a.h5", tmp_path / "b.h5", dry_run=True)
    assert (counts.rows, counts.skipped) == (5, 1)
    assert open_archive(archive).number == 1


def test_the_sample_hangs_on_the_seed_and_not_on_how_rows_come():
    rows = np.arange(3000, dtype=np.float32)[:, None]
    drawn = draw([rows], 200, 7)
    assert drawn.shape == (200, 1)
    assert np.array_equal(drawn, draw(np.array_split(rows, 37), 200, 7))
    assert not np.array_equal(drawn, draw([rows], 200, 8))
    assert len(np.unique(drawn)) == 200
    assert np.array_equal(draw([rows], 5000, 7), rows)
    hits = np.zeros(3000)
    for seed in range(60):  # each row is as likely: 4 draws of 60 on the average
        hits[draw(np.array_split(rows, 5), 200, seed).astype(int)] += 1
    thirds = hits.reshape(3, 1000).sum(axis=1) / hits.sum()
    assert np.abs(thirds - 1 / 3).max() < 0.02


def test_rows_that_are_not_finite_are_not_drawn():
    rows = np.arange(10, dtype=np.float32)[:, None]
    rows[::2] = np.nan
    assert draw([rows], 10, 0)[:, 0].tolist() == [1, 3, 5, 7, 9]


def test_torch_is_not_needed(tmp_path):
    trident(tmp_path / "a.h5", 20)
    lines = (
        "import sys; from patchknn.cli.main import run;"
        f"assert run(['archive', 'import', r'{tmp_path / 'x'}', r'{tmp_path / 'a.h5'}']) == 0;"
        "assert 'torch' not in sys.modules and 'openslide' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True)


def test_a_signal_publishes_what_is_complete(archive, tmp_path):
    for number, name in enumerate("abc"):
        trident(tmp_path / f"{name}.h5", 20, number)
    (tmp_path / "b.h5").write_text("no HDF5")
    files = paired(tmp_path / f"{name}.h5" for name in "abc")
    settings = ImportSettings(reading=Reading(files), asked=Asked(), bits=BITS)

    def stop(_):
        raise StoppedError

    fit = prepare_import(archive, settings)
    with pytest.raises(StoppedError):
        Importer(archive, fit, settings, failed=stop, warned=stop).run()
    assert {source.name for source in open_archive(archive).sources()} == {"a"}
    told = []
    counts = Importer(archive, fit, settings, failed=told.append, warned=stop).run()
    assert (counts.skipped, counts.sources, len(told)) == (1, 1, 1)
    assert verify_archive(archive) == []
