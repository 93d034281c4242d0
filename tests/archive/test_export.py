"""Exports: Parquet, TRIDENT's HDF5 and archives hold what the archive holds, and nothing else."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import duckdb
import h5py
import numpy as np
import pytest

from patchknn.archive import export_parquet as parquet_module
from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.export import plan_export
from patchknn.archive.export_archive import export_archive
from patchknn.archive.export_names import Names, Pseudonyms, is_private, read_secret
from patchknn.archive.export_parquet import export_parquet
from patchknn.archive.export_trident import export_trident
from patchknn.archive.history import label_history
from patchknn.archive.listing import list_rows
from patchknn.archive.manifest import RecordsEntry
from patchknn.archive.manifests import publish
from patchknn.archive.records import records_file, sha256_of
from patchknn.archive.relabel import Correction, relabel_choice, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.runs import describe_run, write_run
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import ConflictError, InputError, PatchknnError, UsageError

EXPORTS = {"parquet": export_parquet, "trident": export_trident, "archive": export_archive}
NAMES = Names()


def export(archive, kind, out, *, names=NAMES, choice=None, at=None, **options):
    plan = plan_export(open_archive(archive, at), kind, choice or Choice(), names)
    return EXPORTS[kind](plan, out, **options)


@pytest.fixture
def changed(archive, bundle, make_rows):
    """Shards in Zarr and HDF5 with removed and relabelled rows: 29 of 36 are left."""
    with ArchiveWriter(archive, store_paths=True) as writer:
        rows = make_rows(bundle, seed=7, images=["e.png"], slides=["u1", "u2"], tiles=11)
        writer.add(rows.take(np.arange(12)))
        writer.publish()
    remove_rows(archive, Choice(ids=["b.png", "t1@224_896"]))
    remove_rows(archive, Choice(slides=["s2.svs"]))
    relabel_choice(archive, Choice(slides=["t2"]), Correction("C", "Dr. Who", "looked again"))
    relabel_patches(archive, {"s1.svs@0_896": Correction(None, "Dr. Who", "x")})
    return archive


def rows_of(archive):
    """(label, x, y, patient, mpp, path, code, bytes of the features) by id."""
    snapshot = open_archive(archive)
    found = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        path = None if row.path == row.source else row.path
        features = shard.features[local]
        values = (row.label, row.x, row.y, row.patient, row.mpp, path, row.code)
        found[row.id] = (*values, features.dtype, features.tobytes())
    return found


def parquet_rows(files):
    sql = f"SELECT * FROM read_parquet('{files}')"
    with duckdb.connect() as connection:
        result = connection.execute(sql)
        names = [entry[0] for entry in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@pytest.mark.parametrize("out", ["rows.parquet", "rows"])
@pytest.mark.parametrize("block_bytes", [64 << 20, 1])
def test_parquet_holds_every_live_row(changed, tmp_path, monkeypatch, out, block_bytes):
    monkeypatch.setattr(parquet_module, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(parquet_module, "_VECTOR", 3 if block_bytes == 1 else 2048)
    done = export(changed, "parquet", tmp_path / out)
    assert not done.is_old
    folder = tmp_path / out
    found = parquet_rows(folder if folder.is_file() else folder / "*.parquet")
    expected = rows_of(changed)
    snapshot = open_archive(changed)
    assert [row["id"] for row in found] == [row.id for row in list_rows(snapshot)]
    for row in found:
        label, x, y, patient, mpp, path, code, dtype, features = expected[row["id"]]
        assert (row["label"], row["x"], row["y"]) == (label, x, y)
        assert (row["patient"], row["mpp"], row["path"], row["code"]) == (patient, mpp, path, code)
        assert row["slide"] == row["id"].split("@")[0]
        assert np.array(row["features"], np.float32).astype(dtype).tobytes() == features
    assert {len(row["features"]) for row in found} == {12}
    assert [path.name for path in tmp_path.glob(".tmp*")] == []


def test_arrow_reads_lists_of_fixed_size(changed, tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet")
    export(changed, "parquet", tmp_path / "rows.parquet")
    kind = arrow.read_schema(tmp_path / "rows.parquet").field("features").type
    assert str(kind) == "fixed_size_list<element: float>[12]"


def test_trident_files_as_its_loader_reads_them(changed, tmp_path):
    export(changed, "trident", tmp_path / "out")
    expected = rows_of(changed)
    seen = {}
    for path in (tmp_path / "out").rglob("*.h5"):
        with h5py.File(path) as file:
            # trident.IO.read_coords, and what its slide encoders ask for.
            attributes, coords = dict(file["coords"].attrs), file["coords"][:]
            features = file["features"][:]
            labels = file["label"].asstr()[:] if "label" in file else [""] * len(coords)
        assert coords.dtype == np.int64
        name = attributes["name"]
        if "level0_mpp" in attributes:
            figures = [attributes[key] for key in ("patch_size", "patch_size_level0")]
            assert figures == [224, 448]
            figures = [attributes[f"{level}_magnification"] for level in ("level0", "target")]
            assert figures == [40, 20]
        for (x, y), feature, label in zip(coords.tolist(), features, labels, strict=True):
            identity = name if x < 0 else f"{name}@{x}_{y}"
            want = expected[identity]
            seen[identity] = path
            assert (label or None, x, y, attributes.get("patient")) == want[:4]
            assert (feature.dtype, feature.tobytes()) == want[-2:]
    assert seen.keys() == expected.keys()
    assert seen["s1.svs@224_896"] == tmp_path / "out/s1.h5"


def test_a_slide_in_several_shards_becomes_one_file(empty, bundle, make_rows, tmp_path):
    rows = make_rows(bundle, images=[], slides=["s.svs", "t.svs"], tiles=40)
    with ArchiveWriter(empty, shard_bytes=700) as writer:
        writer.add(rows)
        writer.publish()
    assert len(open_archive(empty).shards) > 3
    export(empty, "trident", tmp_path / "out")
    with h5py.File(tmp_path / "out/s.h5") as file:
        assert file["coords"][:].tolist() == rows.coords[:40].tolist()
        assert file["features"][:].tobytes() == rows.features[:40].tobytes()


def test_names_become_files_wherever_they_would_lead(empty, bundle, make_rows, tmp_path):
    names = [
        *("../up.svs", "/abs/olute.svs", ".hidden", "a/b.svs", "x.svs", "x.tif", "X.svs", "a//b"),
        *("l" * 300 + ".svs", "TCGA.1-2.ab", "back\\slash", "ü ö.ndpi", ".."),
    ]
    rows = make_rows(bundle, images=[], slides=names, tiles=1)
    with ArchiveWriter(empty) as writer:
        writer.add(rows)
        writer.publish()
    export(empty, "trident", tmp_path / "out")
    found = {}
    for path in (tmp_path / "out").rglob("*.h5"):
        assert not any(part.startswith(".") for part in path.relative_to(tmp_path).parts)
        with h5py.File(path) as file:
            found[file["coords"].attrs["name"]] = path.relative_to(tmp_path / "out").as_posix()
    assert found.keys() == set(names)
    assert (found["a/b.svs"], found["TCGA.1-2.ab"]) == ("a/b.h5", "TCGA.1-2.ab.h5")
    assert (found["x.svs"], found["x.tif"]) == ("x.svs.h5", "x.tif.h5")
    assert not (tmp_path / "up.h5").exists()


@pytest.mark.parametrize("shard_bytes", [512 << 20, 1])
def test_an_archive_of_the_live_rows(changed, tmp_path, shard_bytes):
    out = tmp_path / "elsewhere" / "out"
    export(changed, "archive", out, shard_bytes=shard_bytes)
    expected = rows_of(changed)
    found = rows_of(out)
    assert found.keys() == expected.keys()
    for identity, row in found.items():
        assert row == expected[identity]
    assert verify_archive(out) == []
    snapshot = open_archive(out)
    assert len(snapshot.shards) == (1 if shard_bytes > 1 else len(open_archive(changed).shards))
    assert (snapshot.n_rows, len(snapshot)) == (36 - 7, 36 - 7)
    assert snapshot.n_sources == len({row.source for row in list_rows(snapshot)})
    assert list(label_history(out)) == []
    before = open_archive(changed)
    assert snapshot.settings.archive_id != before.settings.archive_id
    assert snapshot.settings._replace(archive_id="") == before.settings._replace(archive_id="")
    originals = {source.name: source for source in before.sources()}
    assert all(source == originals[source.name] for source in snapshot.sources())
    assert snapshot.bundle().has_network


def test_an_archive_without_the_backbone(changed, tmp_path):
    export(changed, "archive", tmp_path / "out", with_backbone=False)
    snapshot = open_archive(tmp_path / "out")
    assert not snapshot.bundle().has_network
    assert snapshot.settings.encoder_fingerprint == snapshot.bundle().fingerprint
    assert verify_archive(tmp_path / "out") == []


def test_thumbnails_stay_where_there_are_some(archive, bundle, make_rows, tmp_path):
    rows = make_rows(bundle, seed=5, images=["p.png"], slides=["q"], thumbnails=True)
    with ArchiveWriter(archive) as writer:
        writer.add(rows)
        writer.publish()
    export(archive, "archive", tmp_path / "out")
    snapshot = open_archive(tmp_path / "out")
    kept = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        kept[row.id] = shard.thumbnail(local)
    assert kept["a.png"] is None
    wanted = {f"q@{224 * n}_448": bytes([n + 1]) * (n + 1) for n in range(5)}
    assert {identity: kept[identity] for identity in wanted} == wanted


def attach(archive, text="slide,age\ns1.svs,61\n"):
    """A table of records, as if it had been attached."""
    folder = archive / "records"
    folder.mkdir(exist_ok=True)
    (folder / "t.csv").write_text(text)
    with duckdb.connect() as connection:
        connection.execute(f"COPY (FROM '{folder / 't.csv'}') TO '{folder / 't.parquet'}'")
    (folder / "t.csv").unlink()
    entry = RecordsEntry(sha256_of(folder / "t.parquet"), "slide", "t.csv", 1)
    (folder / "t.parquet").rename(records_file(archive, entry.sha256))
    archive_id = open_archive(archive).settings.archive_id
    publish(archive, archive_id, lambda m: m._replace(records=(entry,)), action="x", run_id=None)
    return entry


def test_records_come_along_only_with_all_rows_and_names(changed, tmp_path):
    entry = attach(changed)
    export(changed, "archive", tmp_path / "all")
    assert open_archive(tmp_path / "all").manifest.records == (entry,)
    assert records_file(tmp_path / "all", entry.sha256).is_file()
    assert verify_archive(tmp_path / "all") == []
    part = export(changed, "archive", tmp_path / "part", choice=Choice(slides=["s1.svs"]))
    hidden = export(changed, "archive", tmp_path / "hidden", names=Pseudonyms(b"k" * 32))
    assert part.notes == ("Its records are left out, for only some rows are exported: t.csv.",)
    assert hidden.notes == ("Its records are left out, for names are hidden: t.csv.",)
    for name in ("part", "hidden"):
        assert open_archive(tmp_path / name).manifest.records == ()
        assert not list((tmp_path / name).glob("records/*"))


def test_some_rows_and_those_of_an_earlier_snapshot(changed, tmp_path):
    choice = Choice(slides=["s1.svs", "nothing"], patients=["P1"], labels=["A", "C"])
    plan = plan_export(open_archive(changed), "archive", choice, NAMES)
    assert plan.missing == ("nothing",)
    export_archive(plan, tmp_path / "part")
    ids = {row.id for row in list_rows(open_archive(tmp_path / "part"))}
    expected = {
        row.id
        for row in list_rows(open_archive(changed))
        if (row.source == "s1.svs" or row.patient == "P1") and row.label in {"A", "C"}
    }
    assert ids == expected
    assert set(open_archive(tmp_path / "part").classes) == {"A", "C"}
    export(changed, "archive", tmp_path / "old", at=2)
    assert len(open_archive(tmp_path / "old")) == 24
    with pytest.raises(UsageError, match="no such class"):
        export(changed, "archive", tmp_path / "x", choice=Choice(labels=["Z"]))
    with pytest.raises(InputError, match="no rows to export"):
        export(changed, "archive", tmp_path / "x", choice=Choice(slides=["nothing"]))


@pytest.mark.parametrize("kind", EXPORTS)
def test_what_is_there_is_never_touched(changed, tmp_path, kind):
    out = tmp_path / ("out.parquet" if kind == "parquet" else "out")
    export(changed, kind, out)
    files = [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file())
    before = [(path, path.read_bytes()) for path in files]
    assert export(changed, kind, out).is_old
    for other in ({"at": 2}, {"choice": Choice(slides=["s1.svs"])}, {"names": Pseudonyms(b"k")}):
        with pytest.raises(ConflictError, match="exists and is not this export"):
            export(changed, kind, out, **other)
    assert [(path, path.read_bytes()) for path in files] == before
    for name, what in (("file", Path.touch), ("folder", Path.mkdir)):
        what(tmp_path / name)
        with pytest.raises(ConflictError, match="exists and is not this export"):
            export(changed, kind, tmp_path / name)


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_full_disk_leaves_nothing(changed, tmp_path, little_room, kind):
    out = tmp_path / ("out.parquet" if kind == "parquet" else "out")
    before = sorted(path.name for path in tmp_path.iterdir())
    with little_room(200), pytest.raises((OSError, PatchknnError)):
        export(changed, kind, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.fixture
def named(empty, bundle, make_rows):
    """An archive that tells names in every place that it has: 20 rows."""
    slides = ["Doe_Jane-77.svs", "site/Roe_Rick-78.svs"]
    rows = make_rows(bundle, images=["Poe_Pat-79.png"], slides=slides, tiles=10)
    patients = ("Patient Jane", "Patient Rick")
    rows = rows.with_sources(
        tuple(
            source._replace(path=str(empty.absolute().parent / source.name), patient=patient)
            for source, patient in zip(rows.sources, (None, *patients), strict=True)
        )
    )
    write_run(empty, "run1", describe_run(["patchknn", "embed", *slides], {"x": slides}))
    with ArchiveWriter(empty, run_id="run1") as writer:
        writer.add(rows)
        writer.publish()
    reason = Correction("C", "Doctor Who", "Jane said so")
    relabel_choice(empty, Choice(patients=["Patient Jane"]), reason)
    remove_rows(empty, Choice(ids=["site/Roe_Rick-78.svs@0_896"]))
    compact(empty)
    attach(empty, "slide,who\nDoe_Jane-77.svs,Jane Doe\n")
    return empty


SECRETS = [b"Doe", b"Roe", b"Poe", b"Jane", b"Rick", b"Pat-79", b"Who", b"site", b".svs", b".png"]


def everything_in(out):
    """All names and bytes below a path."""
    if out.is_file():
        return out.read_bytes()
    parts = []
    for path in sorted(out.rglob("*")):
        parts.append(path.relative_to(out).as_posix().encode())
        parts.append(path.read_bytes() if path.is_file() else b"")
    return b"\n".join(parts)


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_deidentified_export_tells_no_name_anywhere(named, tmp_path, kind):
    source = open_archive(named).find_source("Doe_Jane-77.svs")
    hidden = [source.quickhash, source.quickhash.hex().encode()]
    out = tmp_path / ("out.parquet" if kind == "parquet" else "out")
    export(named, kind, out)
    plain = everything_in(out)
    if kind != "parquet":  # whose pages are compressed
        assert all(secret in plain for secret in (b"Doe", b"Roe", b"Poe", b"Jane", b"Rick"))
    names = Pseudonyms(b"s" * 32)
    result = tmp_path / f"hidden-{out.name}"
    export(named, kind, result, names=names)
    content = everything_in(result)
    # By DuckDB's own reader too: bytes of a compressed page say nothing.
    if kind == "parquet":
        content += json.dumps(parquet_rows(result), default=str).encode()
        assert "path" not in parquet_rows(result)[0]
    assert [secret for secret in SECRETS if secret.lower() in content.lower()] == []
    assert [value for value in hidden if value in content] == []
    assert names.slide("Doe_Jane-77.svs").encode() in content
    assert names.patient("Patient Jane").encode() in content
    if kind == "archive":
        assert verify_archive(result) == []
        snapshot = open_archive(result)
        assert {(s.size, s.mtime_ns, s.path == s.name) for s in snapshot.sources()} == {
            (0, 0, True)
        }
        wanted = {
            (names.slide(row.source), row.x, row.y, row.label, names.patient(row.patient), row.code)
            for row in list_rows(open_archive(named))
        }
        rows = list_rows(snapshot)
        assert {(r.source, r.x, r.y, r.label, r.patient, r.code) for r in rows} == wanted


def test_pseudonyms_are_the_same_for_one_secret_and_tell_contents_apart(
    named, bundle, make_rows, tmp_path
):
    one, other = Pseudonyms(b"s" * 32), Pseudonyms(b"t" * 32)
    export(named, "archive", tmp_path / "a", names=one)
    export(named, "parquet", tmp_path / "a.parquet", names=one)
    export(named, "archive", tmp_path / "b", names=other)
    ids = [{r.id for r in list_rows(open_archive(tmp_path / name))} for name in ("a", "b")]
    assert ids[0] == {row["id"] for row in parquet_rows(tmp_path / "a.parquet")}
    assert not ids[0] & ids[1]
    assert all(i.startswith("S-") and len(i.split("@")[0]) == 18 for i in ids[0])
    assert one.slide("P1") != one.patient("P1").replace("P-", "S-")
    assert one.patient(None) is None
    first, second = make_rows(bundle).sources[:2]
    moved = first._replace(path="/x", mtime_ns=5)
    hidden = [one.source(s, named, named) for s in (first, moved, second._replace(name="z"))]
    assert hidden[0].same_content(hidden[1])
    assert not hidden[0].same_content(hidden[2])


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path):
    file = tmp_path / "key"
    secret = read_secret(file)
    assert (len(secret), stat.S_IMODE(file.stat().st_mode)) == (32, 0o600)
    assert read_secret(file) == secret
    assert is_private(file)
    file.chmod(0o644)
    assert not is_private(file)
    assert read_secret(tmp_path / "other") != secret
    (tmp_path / "short").write_bytes(b"secret")
    with pytest.raises(InputError, match="holds 6 bytes, and a secret 16 to 65536"):
        read_secret(tmp_path / "short")
    with pytest.raises(InputError, match="does not exist"):
        read_secret(tmp_path / "none", create=False)
    with pytest.raises(InputError, match="is not a file"):
        read_secret(tmp_path)
