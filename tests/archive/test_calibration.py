import json
from collections.abc import Callable
from pathlib import Path

import pytest

from patchknn.archive.calibration import (
    Calibration,
    calibration_of,
    rows_fingerprint,
    store_calibration,
)
from patchknn.archive.choice import Choice
from patchknn.archive.collect import collect_garbage
from patchknn.archive.compact import compact
from patchknn.archive.export import plan_export
from patchknn.archive.export_archive import export_archive
from patchknn.archive.export_names import Names
from patchknn.archive.history import history
from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import manifest_file, read_manifest
from patchknn.archive.relabel import Correction, relabel_choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.rollback import roll_back
from patchknn.archive.rows import Rows
from patchknn.archive.sealed import sealed_text
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle
from patchknn.errors import DamageError, InputError


def newest(path: Path) -> Manifest:
    return read_manifest(path, read_settings(path).archive_id)


def made(path: Path, **given: object) -> Calibration:
    manifest = newest(path)
    fields = {
        "time": manifest.time,
        "own": True,
        "settings": {"k": 10},
        "rows": manifest.rows,
        "fingerprint": rows_fingerprint(manifest),
        "queries": 24,
        "patients": 4,
        "method": "isotonic",
        "temperature": None,
        "knots": ((0.1, 0.2), (0.5, 0.9)),
        "priors": {"A": 0.5, "B": 0.5},
        "coverage": 0.95,
        "threshold": 0.7,
        "nearest_limit": None,
        "short": 0.0,
        "own_distances": {},
        "held_out": {"isotonic": {"ece": 0.1}},
    }
    return Calibration(**(fields | given))


@pytest.fixture
def calibrated(archive: Path) -> Path:
    store_calibration(archive, made(archive))
    return archive


def stale(path: Path) -> bool | None:
    found = calibration_of(newest(path), path)
    return None if found is None else found.is_stale(newest(path))


def test_it_is_read_as_it_was_stored_and_is_a_snapshot_of_its_own(archive: Path) -> None:
    before = newest(archive)
    assert calibration_of(before, archive) is None
    assert "calibration" not in json.loads(manifest_file(archive, before.number).read_text())
    calibration = made(archive)
    store_calibration(archive, calibration)
    after = newest(archive)
    assert calibration_of(after, archive) == calibration
    assert after.number == before.number + 1
    assert after._replace(calibration=None, **_own(before)) == before
    assert next(history(archive)).action == "calibrate"
    assert verify_archive(archive) == []


def _own(manifest: Manifest) -> dict[str, object]:
    names = ("number", "nonce", "parent", "time", "action", "run_id", "rows_added", "sources_added")
    return {name: getattr(manifest, name) for name in names}


def test_rows_and_labels_that_change_make_it_stale(
    calibrated: Path, bundle: Bundle, make_rows: Callable[..., Rows]
) -> None:
    assert stale(calibrated) is False
    number = newest(calibrated).number
    relabel_choice(calibrated, Choice(ids=("a.png",)), Correction("B"))
    assert stale(calibrated) is True
    roll_back(calibrated, number)
    assert stale(calibrated) is False
    remove_rows(calibrated, Choice(slides=("s1.svs",)))
    assert stale(calibrated) is True
    roll_back(calibrated, number)
    with ArchiveWriter(calibrated) as writer:
        writer.add(make_rows(bundle, seed=7, images=["new.png"], slides=[]))
        writer.publish()
    assert stale(calibrated) is True


def test_rows_that_are_only_written_anew_do_not(calibrated: Path) -> None:
    remove_rows(calibrated, Choice(slides=("s1.svs",)))
    compact(calibrated)
    assert stale(calibrated) is True  # a compaction makes nothing of a stale one
    store_calibration(calibrated, made(calibrated))
    remove_rows(calibrated, Choice(ids=("a.png",)))
    store_calibration(calibrated, made(calibrated))
    before = newest(calibrated)
    assert compact(calibrated).number is not None
    assert newest(calibrated).shards != before.shards
    assert stale(calibrated) is False


def test_an_export_of_all_rows_has_it_and_of_some_has_none(
    calibrated: Path, tmp_path: Path
) -> None:
    for name, choice, expected in (
        ("all", Choice(), False),
        ("some", Choice(labels=("A",)), None),
    ):
        plan = plan_export(open_archive(calibrated), "archive", choice, Names())
        export_archive(plan, tmp_path / name)
        assert stale(tmp_path / name) is expected
    remove_rows(calibrated, Choice(ids=("a.png",)))
    plan = plan_export(open_archive(calibrated), "archive", Choice(), Names())
    export_archive(plan, tmp_path / "stale")
    assert stale(tmp_path / "stale") is True


def test_rollback_undoes_it_and_brings_it_back(calibrated: Path) -> None:
    number = newest(calibrated).number
    roll_back(calibrated, number - 1)
    assert stale(calibrated) is None
    roll_back(calibrated, number)
    assert stale(calibrated) is False


def test_gc_does_not_lose_it(calibrated: Path) -> None:
    collect_garbage(calibrated, keep=1, older_than=0)
    assert stale(calibrated) is False
    assert verify_archive(calibrated) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"},
        {"method": "temperature"},
        {"method": "temperature", "temperature": -1.0},
        {"knots": ()},
        {"knots": ((0.5, 0.2), (0.1, 0.9))},
        {"knots": ((0.1, 0.9), (0.5, 0.2))},
        {"priors": {"A": 2.0}},
        {"priors": None},
        {"coverage": "0.95"},
        {"threshold": "much"},
        {"nearest_limit": "far"},
        {"held_out": {}},
        {"queries": -1},
    ],
)
def test_what_cannot_be_is_damage(archive: Path, wrong: dict[str, object]) -> None:
    store_calibration(archive, made(archive)._replace(**wrong))
    with pytest.raises(DamageError, match="The calibration in snapshot 3 cannot be"):
        calibration_of(newest(archive), archive)
    (finding,) = verify_archive(archive)
    assert finding.file == "manifests/00000003.json"


def _rewrite(path: Path, change: Callable[[dict], object]) -> None:
    file = manifest_file(path, newest(path).number)
    value = json.loads(file.read_text())
    change(value)
    file.write_bytes(sealed_text(value))


def test_an_entry_that_is_missing_or_no_object_is_damage(calibrated: Path) -> None:
    _rewrite(calibrated, lambda value: value["calibration"].pop("priors"))
    with pytest.raises(DamageError, match="cannot be"):
        calibration_of(newest(calibrated), calibrated)
    _rewrite(calibrated, lambda value: value.update(calibration="good"))
    with pytest.raises(DamageError, match="holds an entry that cannot be"):
        newest(calibrated)


def test_one_of_a_newer_version_is_said_to_be(calibrated: Path) -> None:
    _rewrite(calibrated, lambda value: value["calibration"].update(version=2))
    with pytest.raises(InputError, match="calibrated by a newer patchknn: update this one, or"):
        calibration_of(newest(calibrated), calibrated)
