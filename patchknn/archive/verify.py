"""Read all of an archive and say everything that is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from patchknn.archive.calibration import calibration_of
from patchknn.archive.description import SHARDS
from patchknn.archive.index.names import INDEX
from patchknn.archive.index.verify import index_findings
from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import (
    MANIFESTS,
    manifest_file,
    numbers_and_problem,
    read_manifest_file,
)
from patchknn.archive.mosaic_verify import mosaic_findings
from patchknn.archive.runs import RUNS
from patchknn.archive.settings import ENCODER, ArchiveSettings, read_settings
from patchknn.archive.shard import Shard, read_description
from patchknn.archive.shard_list import ShardEntry
from patchknn.archive.snapshot import open_snapshot
from patchknn.archive.verify_changes import change_findings, snapshot_findings
from patchknn.archive.verify_records import records_findings
from patchknn.archive.verify_shard import shard_findings
from patchknn.bundle import Bundle, load_backbone, load_bundle
from patchknn.errors import DamageError, PatchknnError
from patchknn.files import read_json


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the file, and a sentence about it."""

    file: str
    sentence: str

    @property
    def is_derived(self) -> bool:
        """Whether it can be built again from what is whole."""
        return self.file.startswith(f"{INDEX}/")


class Verifier:
    """Checks one archive; ``manifests``, ``shards``, ``changes``, ``rows`` count what was seen.

    ``advance`` is told of bytes as they are read.
    """

    def __init__(self, path: Path, advance: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.manifests = 0
        self.shards = 0
        self.changes = 0
        self.rows = 0
        self._advance = advance or (lambda _: None)

    def findings(self) -> Iterator[Finding]:
        """Everything found wrong, as it is found: nothing where the archive is whole.

        Raises InputError where there is no archive at all.
        """
        try:
            settings = read_settings(self.path)
        except DamageError as error:
            yield Finding("archive.json", _first_sentence(error))
            return
        bundle = yield from self._encoder(settings)
        manifests = yield from self._manifests(settings)
        entries = {entry.uuid: entry for manifest in manifests for entry in manifest.shards}
        whole: dict[str, Shard] = {}
        for entry in entries.values():
            shard = yield from self._shard(entry, settings, bundle)
            if shard is not None:
                whole[entry.uuid] = shard
        changed = yield from self._changes(manifests)
        if manifests:
            yield from self._newest(settings, manifests[-1], whole, changed)
        for file, sentence in records_findings(self.path, manifests, self._advance):
            yield Finding(file, sentence)
        yield from self._runs()
        for file, sentence in index_findings(self.path, self._advance):
            yield Finding(file, sentence)
        for file, sentence in mosaic_findings(self.path, self._advance):
            yield Finding(file, sentence)

    def _encoder(self, settings: ArchiveSettings) -> Generator[Finding, None, Bundle | None]:
        folder = self.path / ENCODER
        try:
            bundle = load_bundle(folder)
            if bundle.has_network:
                load_backbone(bundle)
        except (PatchknnError, OSError) as error:
            yield Finding(ENCODER, _first_sentence(error))
            return None
        if bundle.fingerprint != settings.encoder_fingerprint:
            yield Finding(ENCODER, "It is another encoder than the one that made the rows.")
            return None
        return bundle

    def _manifests(self, settings: ArchiveSettings) -> Generator[Finding, None, list[Manifest]]:
        numbers, problem = numbers_and_problem(self.path)
        if problem is not None:
            yield Finding(MANIFESTS, _first_sentence(problem))
        if not numbers and problem is None:
            yield Finding(MANIFESTS, "It holds no manifest.")
        good: list[Manifest] = []
        previous: Manifest | None = None
        for number in numbers:
            self.manifests += 1
            name = _manifest_name(self.path, number)
            if number != numbers[0] and number - 1 not in numbers:
                yield Finding(name, f"The manifest before it, {number - 1}, is missing.")
            try:
                manifest = read_manifest_file(self.path, settings.archive_id, number)
            except (PatchknnError, OSError) as error:
                yield Finding(name, _first_sentence(error))
                previous = None
                continue
            follows = previous is None or manifest.parent == previous.nonce
            if not follows and number - 1 in numbers:
                yield Finding(name, f"It does not follow manifest {number - 1}.")
            good.append(manifest)
            previous = manifest
        return good

    def _shard(
        self, entry: ShardEntry, settings: ArchiveSettings, bundle: Bundle | None
    ) -> Generator[Finding, None, Shard | None]:
        self.shards += 1
        self.rows += entry.rows
        try:
            description = read_description(self.path, entry, settings)
        except (PatchknnError, OSError) as error:
            yield Finding(f"{SHARDS}/{entry.uuid}.json", _first_sentence(error))
            return None
        shard = Shard(self.path, description, 0, description.classes)
        clean = True
        for file, sentence in shard_findings(shard, bundle, self._advance):
            clean = False
            yield Finding(f"{SHARDS}/{file}", sentence)
        return shard if clean else None

    def _changes(self, manifests: list[Manifest]) -> Generator[Finding, None, set[str]]:
        """The changes that are whole, by uuid."""
        entries = {e.uuid: e for m in manifests for e in (*m.label_history, *m.changes)}
        whole = set()
        for uuid, entry in entries.items():
            clean = True
            for file, sentence in change_findings(self.path, entry, self._advance):
                clean = False
                yield Finding(file, sentence)
            if clean:
                whole.add(uuid)
        self.changes = len(entries)
        return whole

    def _newest(
        self,
        settings: ArchiveSettings,
        manifest: Manifest,
        shards: dict[str, Shard],
        changes: set[str],
    ) -> Iterator[Finding]:
        """What is wrong between files that are whole; of damaged ones enough was said."""
        name = _manifest_name(self.path, manifest.number)
        try:
            calibration_of(manifest, self.path)
        except DamageError as error:
            yield Finding(name, _first_sentence(error))
        for entry in manifest.shards:
            shard = shards.get(entry.uuid)
            if shard is not None and not set(shard.description.classes) <= set(manifest.classes):
                yield Finding(name, f"It lacks class names of shard {entry.uuid}.")
                return
        if not all(e.uuid in shards for e in manifest.shards):
            return
        if not all(e.uuid in changes for e in manifest.changes):
            return
        try:
            snapshot = open_snapshot(self.path, settings, manifest=manifest)
            for file, sentence in snapshot_findings(snapshot, name):
                yield Finding(file, sentence)
        except PatchknnError as error:
            yield Finding(name, _first_sentence(error))

    def _runs(self) -> Iterator[Finding]:
        folder = self.path / RUNS
        if not folder.is_dir():
            return
        for file in sorted(folder.glob("*.json")):
            if file.name.startswith("."):
                continue
            try:
                read_json(file)
            except (PatchknnError, OSError) as error:
                yield Finding(f"{RUNS}/{file.name}", _first_sentence(error))


def verify_archive(path: Path) -> list[Finding]:
    """Everything that is wrong with an archive; InputError where there is none."""
    return list(Verifier(path).findings())


def _manifest_name(path: Path, number: int) -> str:
    return f"{MANIFESTS}/{manifest_file(path, number).name}"


def _first_sentence(error: Exception) -> str:
    return str(error).split(" See all that is wrong by ")[0]
